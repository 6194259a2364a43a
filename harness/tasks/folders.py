"""Folders of tasks: every definition in them, and what is wrong with which file."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from harness.artifacts import digest_of
from harness.errors import SuiteError, UnreadableError
from harness.reading import bounds, read_bytes
from harness.tasks.definitions import Definition, read_definition
from harness.tasks.files import files_below

_SUFFIXES = (".yaml", ".yml")
_MOST_FILES = 20_000
"""YAML files of one folder; lm-eval itself has 14,000."""
_NAMED = re.compile(rb"^[ \t]*(?:task|group)[ \t]*:[ \t]*[\"']?([^\s\"'#]+)", re.MULTILINE)
"""What a file that cannot be read seems to define."""


class _Broken(NamedTuple):
    """A file that may define a task, and cannot be used."""

    names: frozenset[str]
    why: str
    """One line, with the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnTasks:
    """All tasks of some folders."""

    folders: tuple[Path, ...]
    definitions: Mapping[str, Definition]
    """By name; of a name that is there twice, the first."""
    doubles: Mapping[str, tuple[Path, ...]]
    """Files of the names that are defined more than once."""
    broken: tuple[_Broken, ...]

    def named(self, name: str) -> tuple[str, ...]:
        """Return the own task or group that is called so, and those that carry it as a tag."""
        itself = (name,) if name in self.definitions else ()
        return (*itself, *self._tagged(name))

    def of(self, name: str) -> tuple[Definition, ...]:
        """Return the own definitions that a name stands for: itself, members, their members."""
        found: dict[str, Definition] = {}
        waiting = list(self.named(name))
        while waiting:
            one = waiting.pop()
            definition = self.definitions.get(one)
            if definition is not None and one not in found:
                found[one] = definition
                waiting += [own for member in definition.members for own in self.named(member)]
        return tuple(found[one] for one in sorted(found))

    def _tagged(self, name: str) -> tuple[str, ...]:
        return tuple(d.name for d in self.definitions.values() if name in d.tags)

    def digest_of(self, name: str) -> str | None:
        """Return the digest of all files behind a name; None where it is no own task.

        Raises:
            UnreadableError: a task names Python, and its folder has too much of it.
        """
        found = self.of(name)
        return digest_of([(d.name, d.digest()) for d in found]) if found else None

    def problems_of(self, names: Iterable[str]) -> Iterator[str]:
        """Yield what is wrong with the files behind `names`, a line each."""
        asked = set(names)
        reached = asked | {d.name for name in asked for d in self.of(name)}
        reached |= {m for name in asked for d in self.of(name) for m in d.members}
        for name in sorted(reached & self.doubles.keys()):
            files = " and ".join(f"'{path}'" for path in self.doubles[name])
            yield f"the task '{name}' is defined twice, in {files}. Rename one of them."
        for name in sorted(reached & self.definitions.keys()):
            for other in set(self._tagged(name)) - {name}:
                yield (
                    f"'{name}' is defined in '{self.definitions[name].file}' and is a tag in "
                    f"'{self.definitions[other].file}'. Rename one of them."
                )
        unknown = {name for name in reached if not self.named(name)}
        for broken in self.broken:
            if broken.names & unknown:
                yield broken.why


def read_own_tasks(folders: Sequence[Path]) -> OwnTasks:
    """Read all tasks of some folders.

    Raises:
        SuiteError: a folder is not there, or has no task at all.
    """
    known: dict[str, Definition] = {}
    doubles: dict[str, tuple[Path, ...]] = {}
    broken: list[_Broken] = []
    for folder in folders:
        for found in _read(folder):
            if isinstance(found, _Broken):
                broken.append(found)
            elif found.name in known and known[found.name].file != found.file:
                before = doubles.get(found.name, (known[found.name].file,))
                doubles[found.name] = (*before, found.file)
            else:
                known[found.name] = found
    return OwnTasks(
        folders=tuple(folders), definitions=known, doubles=doubles, broken=tuple(broken)
    )


def _read(folder: Path) -> list[Definition | _Broken]:
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "is not there"
        message = (
            f"the folder of tasks '{folder}' {what}. Name the folder of the tasks' YAML files."
        )
        raise SuiteError(message)
    found = [one for path in _files(folder) if (one := _definition(path)) is not None]
    if not found:
        message = (
            f"no task is defined in '{folder}': none of its YAML files (*.yaml) has a line "
            "'task: NAME'. Name the folder of the tasks' YAML files."
        )
        raise SuiteError(message)
    return found


def _files(folder: Path) -> list[Path]:
    files: list[Path] = []
    for path in files_below(folder, *_SUFFIXES):
        files.append(path)
        if len(files) > _MOST_FILES:
            message = f"'{folder}' has more than {_MOST_FILES} YAML files. Name a smaller folder."
            raise SuiteError(message)
    return files


def _definition(path: Path) -> Definition | _Broken | None:
    try:
        found = read_definition(path)
    except UnreadableError as error:
        names = _named_in(path)
        return _Broken(names, f"{error} Mend the task's file.") if names else None
    if found is not None and path.suffix == ".yml":
        why = f"'{path}' is not read by lm-eval, which takes *.yaml alone. Rename it."
        return _Broken(frozenset({found.name}), why)
    return found


def _named_in(path: Path) -> frozenset[str]:
    """Return the names that a file seems to define, and its own."""
    try:
        content = read_bytes(path, most=bounds.YAML_BYTES)
    except UnreadableError:
        content = b""
    found = {name.decode(errors="replace") for name in _NAMED.findall(content)}
    return frozenset(found | {path.stem})
