"""One baseline as one file: a gzipped tar of JSON, with the sha256 of every file in front.

A bundle may come from anywhere, so it is read as data of a stranger: plain files with plain names
only, each announced in the manifest with its size and hash, none larger than a limit; then the
scores are read and checked as an entry is. Only what has passed all of it is given a name in the
store. It is not signed: that its numbers are true is as sure as where it came from.
"""

import gzip
import hashlib
import re
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, BinaryIO

from pydantic import TypeAdapter, ValidationError

from harness import doors
from harness.artifacts import to_json
from harness.baselines.entries import PROBE_FILE, check_entry
from harness.baselines.store import (
    AGAIN,
    ENTRY_FILE,
    SCORECARD_FILE,
    Kept,
    entry,
    store,
)
from harness.errors import BaselineError, PrerequisiteError
from harness.reading import open_regular

MANIFEST_FILE = "bundle.json"
MAX_FILES = 4096
MAX_BYTES = 4 << 30
"""Of all files together, unpacked."""
_MAX_MANIFEST_BYTES = 4 << 20
_DEPLOYMENT_FILE = "deployment.json"
_PLAIN = re.compile(r"(again/)?(samples/)?[^/\\\x00-\x1f.][^/\\\x00-\x1f]*")
_CHUNK = 1 << 20
_BROKEN = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """One file of a bundle."""

    sha256: str
    num_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a bundle says that it holds; its first member."""

    kind: str
    version: int
    files: Mapping[str, Packed]


_KIND, _VERSION = "harness-baseline", 1


def is_bundle(path: Path) -> bool:
    """Return whether `path` is a file, and so can be nothing but a bundle."""
    return path.is_file()


def export_baseline(kept: Kept, out: Path) -> Path:
    """Write a complete entry to the file `out`, which appears whole or not at all.

    Raises:
        BaselineError: the entry is damaged, or the file cannot be written.
        UsageError: `out` is no regular file, or one that is no bundle.
    """
    doors.check_file(out)
    _refuse_other_files(out)
    check_entry(kept.folder, named=str(kept.folder))
    names = sorted(_names_in(kept.folder))
    files = {name: _packed(kept.folder / name) for name in names}
    manifest = Manifest(kind=_KIND, version=_VERSION, files=files)
    try:
        with (
            doors.written(out) as raw,
            gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            text = TypeAdapter(object).dump_json(to_json(manifest), indent=1)
            _add(tar, MANIFEST_FILE, BytesIO(text), len(text))
            for name in names:
                with (kept.folder / name).open("rb") as content:
                    _add(tar, name, content, files[name].num_bytes)
    except OSError as error:
        message = f"'{out}' cannot be written ({error.strerror}). Give --out another place."
        raise BaselineError(message) from error
    return out


def _refuse_other_files(out: Path) -> None:
    """Refuse to replace a file that is no bundle."""
    if not out.exists():
        return
    try:
        with tarfile.open(out, "r:gz") as tar:
            _read_manifest(tar, out)
    except (*_BROKEN, OSError, BaselineError) as error:
        message = f"'{out}' exists and is no bundle of a baseline. Give --out another name."
        raise BaselineError(message) from error


def import_baseline(bundle: Path) -> tuple[Kept, bool]:
    """Put a bundle into the store; return it, and whether it is new there.

    An entry that is there already is left as it is.

    Raises:
        BaselineError: the bundle is damaged; nothing is written.
        PrerequisiteError: the store cannot be written.
    """
    try:
        store().mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=".import-", dir=store())
    except OSError as error:
        message = f"the baselines' folder '{store()}' cannot be written ({error.strerror})."
        raise PrerequisiteError(message) from error
    with scratch as name:
        _unpack(bundle, Path(name))
        found = check_entry(Path(name), named=str(bundle))
        with entry(found.inputs.key) as folder:
            kept = Kept(folder.name, folder, found)
            if (folder / ENTRY_FILE).exists() and (folder / SCORECARD_FILE).exists():
                return kept, False
            _move(Path(name), folder)
    return kept, True


@contextmanager
def unpacked(bundle: Path) -> Iterator[Path]:
    """Give a checked bundle as a folder that is gone afterwards.

    Raises:
        BaselineError: the bundle is damaged.
    """
    with tempfile.TemporaryDirectory(prefix="harness-baseline-") as name:
        _unpack(bundle, Path(name))
        check_entry(Path(name), named=str(bundle))
        yield Path(name)


def _names_in(folder: Path) -> Iterator[str]:
    for name in (ENTRY_FILE, SCORECARD_FILE, _DEPLOYMENT_FILE, PROBE_FILE):
        if (folder / name).is_file():
            yield name
    for part in (folder, folder / AGAIN):
        yield from (str(path.relative_to(folder)) for path in part.glob("samples/*.jsonl"))
    if (folder / AGAIN / SCORECARD_FILE).is_file():
        yield f"{AGAIN}/{SCORECARD_FILE}"


def _packed(path: Path) -> Packed:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Packed(sha256=sha256, num_bytes=path.stat().st_size)


def _add(tar: tarfile.TarFile, name: str, content: BinaryIO, num_bytes: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = num_bytes, 0o644
    tar.addfile(member, content)


def _unpack(bundle: Path, into: Path) -> None:
    """Write the files of `bundle` into an empty folder, each checked against the manifest."""
    try:
        with (
            open_regular(bundle) as raw,
            _Bounded(fileobj=raw, mode="rb") as unzipped,
            tarfile.open(fileobj=unzipped, mode="r:") as tar,
        ):
            manifest = _read_manifest(tar, bundle)
            left = dict(manifest.files)
            for member in tar:
                if member.name != MANIFEST_FILE:
                    _take(tar, member, left.pop(member.name, None), into)
    except _BROKEN as error:
        raise _damaged(bundle, str(error) or type(error).__name__) from error
    except OSError as error:
        message = f"'{bundle}' cannot be unpacked ({error.strerror or error}). Check the file."
        raise BaselineError(message) from error
    if left:
        raise _damaged(bundle, f"'{min(left)}' is announced and missing")


class _Bounded(gzip.GzipFile):
    """What tarfile reads of: a name or a comment in an archive may say that it has a gigabyte."""

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes.

        Raises:
            ReadError: more are asked for than our own reading ever does.
        """
        if size is None or not 0 <= size <= _MAX_MANIFEST_BYTES:
            message = f"a name or comment in it has {size} bytes"
            raise tarfile.ReadError(message)
        return super().read(size)


def _read_manifest(tar: tarfile.TarFile, bundle: Path) -> Manifest:
    member = tar.next()
    content = tar.extractfile(member) if member is not None and member.isreg() else None
    if member is None or content is None or member.name != MANIFEST_FILE:
        raise _damaged(bundle, f"it does not begin with {MANIFEST_FILE}")
    try:
        values = content.read(_MAX_MANIFEST_BYTES)
        manifest = TypeAdapter(Manifest).validate_json(values)
    except ValidationError as error:
        raise _damaged(bundle, f"{MANIFEST_FILE}: {error.errors()[0]['msg']}") from error
    if (manifest.kind, manifest.version) != (_KIND, _VERSION):
        raise _damaged(bundle, f"it is '{manifest.kind}' version {manifest.version}")
    sizes = [file.num_bytes for file in manifest.files.values()]
    total = sum(sizes)
    if len(sizes) > MAX_FILES or total > MAX_BYTES or min(sizes, default=0) < 0:
        raise _damaged(bundle, f"it announces {len(sizes)} files of {total} bytes")
    return manifest


def _take(
    tar: tarfile.TarFile, member: tarfile.TarInfo, announced: Packed | None, into: Path
) -> None:
    name = member.name
    if not member.isreg() or not _PLAIN.fullmatch(name):
        message = f"'{name}' is no plain file with a plain name"
        raise tarfile.ReadError(message)
    content = tar.extractfile(member)
    if announced is None or content is None or member.size != announced.num_bytes:
        message = f"'{name}' is not announced with this size, or comes twice"
        raise tarfile.ReadError(message)
    path = into / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if _copy(content, path) != announced.sha256:
        message = f"'{name}' is not what its sha256 says"
        raise tarfile.ReadError(message)


def _copy(content: IO[bytes], path: Path) -> str:
    sha256 = hashlib.sha256()
    with path.open("xb") as file:
        while chunk := content.read(_CHUNK):
            sha256.update(chunk)
            file.write(chunk)
    return sha256.hexdigest()


def _move(scratch: Path, folder: Path) -> None:
    """Move checked files into a locked entry; the two that make it complete come last."""
    last = (ENTRY_FILE, SCORECARD_FILE)
    names = [n for n in sorted(_names_in(scratch)) if n not in last]
    for name in (*names, *last):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (scratch / name).replace(folder / name)


def _damaged(bundle: Path, found: str) -> BaselineError:
    message = f"'{bundle}' is no whole bundle of a baseline: {found}. Export it again."
    return BaselineError(message)
