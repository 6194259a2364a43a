"""The ledger of nightlies: rows are added and never changed, by many processes and machines.

Each machine writes a file of its own (`lines`), so that no lock has to hold between machines, which
those of many shared file systems do not; processes of one machine take turns. A row that is there
already, by its content, is not added again.
"""

import fcntl
import os
import platform
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from harness import doors, refusals
from harness.artifacts import digest_of, save
from harness.artifacts.nights import NightRow
from harness.errors import ReasonCode, RunDirectoryError
from harness.nights.lines import (
    HEAD,
    LINES,
    PREFIX,
    Head,
    Line,
    Verified,
    line_of,
    read_heads,
    read_ledger,
    sha256_of,
    whole_lines,
    written,
)
from harness.nights.order import in_order

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NO_NAME = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST_NAME = 60
_ROW = TypeAdapter(NightRow)


@dataclass(frozen=True, slots=True)
class Ledger:
    """The ledger in a folder, which need not be there yet."""

    folder: Path
    _known: dict[str, Verified] = field(default_factory=dict, compare=False, repr=False)
    _rows: dict[str, NightRow] = field(default_factory=dict, compare=False, repr=False)
    """By id: a nightly asks often, and a year of rows takes seconds to read."""

    @property
    def exists(self) -> bool:
        """Whether something was ever written."""
        return any(self.folder.glob(f"{PREFIX}*"))

    def rows(self) -> tuple[NightRow, ...]:
        """Return every row once, in order (`order`).

        Raises:
            RunDirectoryError: lines were changed or are missing.
        """
        files = read_ledger(self.folder, self._known)
        lines = in_order(line for file in files.values() for line in file)
        for line in lines:
            if line.id not in self._rows:
                self._rows[line.id] = _row_in(line, self.folder)
        return tuple(self._rows[line.id] for line in lines)

    def append(self, row: NightRow) -> bool:
        """Add a row; it is on the disk when this returns.

        Returns:
            Whether it was added: not where the ledger has the same row.

        Raises:
            RunDirectoryError: lines were changed or are missing; nothing was added.
            DiskFullError: no space was left; nothing was added.
            SystemRefusedError: the operating system refused something else.
        """
        with self._writing() as (name, head, known):
            order = 1 + max((line.order for file in known.values() for line in file), default=0)
            return self._add([line_of(row, origin=head.origin, order=order)], name, known) == 1

    def merge(self, other: Path) -> int:
        """Add the rows of another folder's ledger that are not here, and return how many.

        Raises:
            RunDirectoryError: there is no ledger, or lines of one were changed or are missing.
        """
        if not Ledger(other).exists:
            message = f"'{other}' holds no ledger. Name the folder of a nightly."
            raise RunDirectoryError(message)
        theirs = [line for file in read_ledger(other).values() for line in file]
        with self._writing() as (name, _, known):
            return self._add(in_order(theirs), name, known)

    @contextmanager
    def _writing(self) -> Iterator[tuple[str, Head, dict[str, list[Line]]]]:
        """Give this machine's file, its head and all lines, while no other process of it writes."""
        name = f"{PREFIX}{_machine()}"
        doors.check_folder(self.folder)
        lock: int | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = doors.open_regular(self.folder / f".{name}.lock", create=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (self.folder / f"{name}{LINES}").exists():
                self._begin(name)
            known = read_ledger(self.folder, self._known)
            yield name, read_heads(self.folder)[name], known
        except OSError as error:
            raise refusals.running(error) from error
        finally:
            if lock is not None:
                os.close(lock)

    def _begin(self, name: str) -> None:
        """Begin a file: its head first, so that lines without one are lines that lost it."""
        head = self.folder / f"{name}{HEAD}"
        if not head.exists():
            save(Head(origin=secrets.token_hex(8)), head)

    def _add(self, lines: Sequence[Line], name: str, known: dict[str, list[Line]]) -> int:
        ids = {line.id for file in known.values() for line in file}
        new = [line for line in lines if line.id not in ids]
        if not new:
            return 0
        head = read_heads(self.folder)[name]
        path = self.folder / f"{name}{LINES}"
        there = whole_lines(path)
        previous = sha256_of(there[-1]) if there else head.origin
        chained: list[bytes] = []
        for line in new:
            chained.append(written(line, previous))
            previous = sha256_of(chained[-1])
        _extend(path, sum(map(len, there)), b"".join(chained))
        seen = {other: len(file) for other, file in known.items() if other != name}
        ours = Head(origin=head.origin, lines=len(there) + len(new), last=previous, seen=seen)
        save(ours, self.folder / f"{name}{HEAD}")
        return len(new)


def open_ledger(folder: Path) -> Ledger:
    """Return the ledger in a folder, which is made when the first row is added.

    Raises:
        UsageError: it is no folder, or one that cannot be written to.
    """
    doors.check_folder(folder)
    return Ledger(folder)


def _extend(path: Path, size: int, content: bytes) -> None:
    """Write behind the whole lines of a file, in the place of a row that was not finished.

    Raises:
        OSError: the system refused; the file is as it was.
    """
    file = doors.open_regular(path, create=True)
    try:
        os.ftruncate(file, size)
        try:
            done = 0
            while done < len(content):
                done += os.pwrite(file, content[done:], size + done)
            os.fsync(file)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(file, size)
            error.filename = str(path)
            raise
    finally:
        os.close(file)


def _machine() -> str:
    """Return what tells this machine, since its last start, from every other that may write."""
    host = _NO_NAME.sub("_", platform.node())[:_LONGEST_NAME] or "unnamed"
    try:
        boot = _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return host
    return f"{host}-{digest_of(boot)[:8]}"


def _row_in(line: Line, folder: Path) -> NightRow:
    try:
        return _ROW.validate_python(line.row)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        message = (
            f"the ledger in '{folder}' has a row that this version of harness does not know, "
            f"{where}: {first['msg']}. Use the version that wrote it, or a later one."
        )
        raise RunDirectoryError(message, reason=ReasonCode.UNREADABLE) from error
