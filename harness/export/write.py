"""Write the checkpoint: all of it, or nothing under its name.

Everything goes to `<into>.partial`, each tensor to the place that the plan gives it. Only when
every shard was read back, every sidecar copied and every file flushed is the folder renamed to
`into`, so a run that is killed at any moment leaves no folder that looks complete. What stood at
`into` before is replaced at that moment and not sooner.
"""

import errno
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from harness import doors
from harness.artifacts import Checkpoint, QuantizedTensor, QuantPlan, digest_of
from harness.errors import DiskFullError, RunDirectoryError
from harness.export.config import PRODUCER, config_with_quantization, hf_quant_config
from harness.export.layout import lay_out
from harness.export.read_back import file_sha256
from harness.export.shards import Shard, ShardWriter
from harness.export.sidecars import copy_sidecars
from harness.export.size import bits_per_weight, early_tensors, late_tensors, required_bytes
from harness.holding import Holding
from harness.models import Source, remember_written

_log = logging.getLogger("harness.export")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MANIFEST = "harness.json"
_MIN_SHARD_BYTES = 2**29
_MAX_SHARDS = 256


class Draft(Holding):
    """Context manager over a checkpoint in the making: its tensors may come in any order.

    Nothing is written before the first tensor comes or `begin`, and nothing is left of it unless it
    was finished.
    """

    def __init__(
        self,
        source: Source,
        plan: QuantPlan,
        *,
        into: Path,
        max_shard_bytes: int | None = None,
        joins: bool = False,
    ) -> None:
        """Take what is to be written, and where; one that `joins` was begun by another process.

        Raises:
            RunDirectoryError: `into` holds something that is no checkpoint of harness.
        """
        super().__init__()
        check_target(source, into)
        self._source, self._plan, self.into = source, plan, into
        self._max_shard_bytes, self._joins = max_shard_bytes, joins
        self._partial: Path | None = None
        self._writer: ShardWriter | None = None

    def put(self, quantized: QuantizedTensor) -> None:
        """Write tensors; they must not be changed afterwards.

        Raises:
            DiskFullError: no space is left.
            StageError: one is not as the plan has it, or comes twice.
        """
        with self._disk_full():
            self._open().put(quantized.tensors)

    def write(self, quantized: QuantizedTensor) -> None:
        """Write tensors and return when they are written, while others may put theirs.

        Raises:
            DiskFullError: no space is left.
            StageError: one is not as the plan has it, or comes twice.
        """
        with self._disk_full():
            self._open().write(quantized.tensors)

    def begin(self) -> None:
        """Create the files, so that several threads may write, and other processes join.

        Raises:
            DiskFullError: no space is left.
        """
        with self._disk_full():
            self._open()

    def hand_over(self) -> Mapping[str, str]:
        """Wait until all that was put is written; return it for the draft that was joined.

        Raises:
            DiskFullError: no space is left.
        """
        with self._disk_full():
            return self._open().hand_over()

    def adopt(self, written: Mapping[str, str]) -> None:
        """Take what a draft that joined has handed over.

        Raises:
            StageError: a tensor is not as the plan has it, or comes twice.
        """
        self._open().adopt(written)

    def has(self, name: str) -> bool:
        """Tell whether a tensor has come."""
        return self._writer is not None and self._writer.has(name)

    def complete(self, rest: Iterable[QuantizedTensor]) -> Checkpoint:
        """Write the tensors that are left and what belongs to them; give the folder its name.

        Raises:
            DiskFullError: no space is left; nothing of the new checkpoint stays.
            StageError: a tensor is missing, or a file reads back differently.
        """
        for quantized in rest:
            self.put(quantized)
        with self._disk_full():
            shards = self._open().finish()
            partial = self._folder()
            _write_index(shards, partial)
            _write_json(partial / "hf_quant_config.json", hf_quant_config(self._plan))
            config = config_with_quantization(self._source.config, self._plan)
            _write_json(partial / "config.json", config)
            copy_sidecars(self._source.path, partial)
            checkpoint = _describe(self._source, self._plan, shards, partial, self.into)
            _flush(partial)
            _replace(self.into, partial)
            remember_written({self.into / name: h for name, h in checkpoint.sha256.items()})
        _log.info("export: %.2f GiB in %d file(s)", checkpoint.num_bytes / 2**30, len(shards))
        return checkpoint

    def _folder(self) -> Path:
        if self._joins:
            return partial_of(self.into)
        if self._partial is None:
            self.into.parent.mkdir(parents=True, exist_ok=True)
            self._partial = self._exits.enter_context(_partial_folder(self.into))
        return self._partial

    def _open(self) -> ShardWriter:
        if self._writer is None:
            tensors = list(early_tensors(self._source, self._plan))
            late = list(late_tensors(self._source, self._plan))
            num_bytes = sum(tensor.num_bytes for _, tensor in chain(tensors, late))
            most = self._max_shard_bytes or shard_bytes(num_bytes)
            layout = lay_out(tensors, max_bytes=most, late=late)
            writer = ShardWriter(layout, self._folder(), joins=self._joins)
            self._writer = self._exits.enter_context(writer)
        return self._writer

    @contextmanager
    def _disk_full(self) -> Iterator[None]:
        """Turn the system's refusal to write into one line that says how much space is needed."""
        try:
            yield
        except OSError as error:
            if error.errno not in _FULL:
                raise
            message = (
                f"no space left while writing '{self.into}': the checkpoint needs "
                f"{required_bytes(self._source, self._plan)} bytes. Free some, or choose another "
                "disk."
            )
            raise DiskFullError(message) from error


def shard_bytes(num_bytes: int) -> int:
    """Return the largest size of a file of weights, of a checkpoint of `num_bytes`.

    A file is hashed by one thread, so small ones take all of a machine's; all are open at a time.
    """
    return max(_MIN_SHARD_BYTES, num_bytes // _MAX_SHARDS)


def export(
    source: Source,
    plan: QuantPlan,
    tensors: Iterable[QuantizedTensor],
    *,
    into: Path,
    max_shard_bytes: int | None = None,
) -> Checkpoint:
    """Write `tensors` and all that belongs to them to the folder `into`.

    Raises:
        DiskFullError: no space is left; nothing of the new checkpoint stays.
        RunDirectoryError: `into` holds something that is no checkpoint of harness.
        StageError: a tensor is missing or comes twice, or a file reads back differently.
    """
    with Draft(source, plan, into=into, max_shard_bytes=max_shard_bytes) as draft:
        return draft.complete(tensors)


def _write_index(shards: list[Shard], partial: Path) -> None:
    """Write which file holds which tensor, if there is more than one."""
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(shard.data_bytes for shard in shards)},
            "weight_map": {n: shard.path.name for shard in shards for n in sorted(shard.names)},
        }
        _write_json(partial / "model.safetensors.index.json", index)


def _describe(
    source: Source, plan: QuantPlan, shards: list[Shard], partial: Path, into: Path
) -> Checkpoint:
    """Write the manifest and return the noun."""
    known = {shard.path.name: shard.sha256 for shard in shards}
    sha256 = {
        (name := str(path.relative_to(partial))): known.get(name) or file_sha256(path)
        for path in sorted(partial.rglob("*"))
        if path.is_file()
    }
    checkpoint = Checkpoint(
        directory=str(into),
        scheme=plan.scheme,
        kv_cache=str(plan.kv_cache),
        num_bytes=sum((partial / name).stat().st_size for name in known),
        num_tensors=sum(len(shard.names) for shard in shards),
        num_quantized=len(plan.quantized),
        bits_per_weight=bits_per_weight(plan),
        sha256=sha256,
        digest=digest_of(sha256),
    )
    manifest = {
        "producer": dict(PRODUCER),
        "scheme": checkpoint.scheme,
        "kv_cache": checkpoint.kv_cache,
        "source_digest": source.digest,
        "plan_digest": plan.digest,
        "digest": checkpoint.digest,
        "sha256": sha256,
        "tensors_xxh3": {shard.path.name: shard.tensors_xxh3 for shard in shards},
    }
    _write_json(partial / MANIFEST, manifest)
    return checkpoint


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    doors.write_atomically(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def check_target(source: Source, into: Path) -> None:
    """Refuse to replace what harness did not write, and to write among what it reads.

    Raises:
        RunDirectoryError: `into` holds something that is no checkpoint of harness, or lies within
            the model's folder.
    """
    if into.resolve().is_relative_to(source.path.resolve()):
        message = f"'{into}' lies within the model '{source.path}'. Choose a folder outside of it."
        raise RunDirectoryError(message)
    doors.check_folder(into)
    for folder in (into, _old_of(into)):
        if (folder / MANIFEST).is_file() or not (folder.is_symlink() or folder.exists()):
            continue
        if folder.is_symlink() or not folder.is_dir() or any(folder.iterdir()):
            message = (
                f"'{folder}' exists and is no checkpoint of harness. Choose another folder, or "
                "remove it."
            )
            raise RunDirectoryError(message)


def partial_of(into: Path) -> Path:
    """Return the folder that becomes `into`."""
    return into.with_name(f"{into.name}.partial")


@contextmanager
def _partial_folder(into: Path) -> Iterator[Path]:
    """Give a fresh folder beside `into`; whatever is left of it at the end is removed."""
    partial = partial_of(into)
    doors.make_anew(partial)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Force all files and folders to the disk."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _replace(into: Path, partial: Path) -> None:
    """Put the complete folder where it belongs; an older one is removed afterwards."""
    old = _old_of(into)
    doors.remove(old)
    if into.exists():
        into.rename(old)
    partial.rename(into)
    doors.remove(old)


def _old_of(into: Path) -> Path:
    """Return the folder to which `into` is moved while another takes its place."""
    return into.with_name(f"{into.name}.old")
