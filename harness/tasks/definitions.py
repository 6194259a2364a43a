"""One task or group of lm-eval as its YAML file defines it, with all files that it is made of."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UnreadableError
from harness.reading import open_regular, read_yaml_with_functions
from harness.tasks.code import Function, code_of
from harness.tasks.files import is_there
from harness.tasks.groups import as_list, members_of

BUILDERS = ("json", "csv", "parquet")
"""What `dataset_path` may be called where the items lie beside the task."""
_MOST_INCLUDES = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Definition:
    """A task or a group."""

    name: str
    file: Path
    """No link: what a link leads to, beside which lm-eval looks for all that is named in it."""
    config: Mapping[str, Any]
    """What the file says, with what it includes."""
    read: tuple[Path, ...]
    """The file, and those that it includes."""
    functions: tuple[Function, ...]
    """That these files name."""

    @property
    def folder(self) -> Path:
        """Return where its relative paths start."""
        return self.file.parent

    @property
    def is_group(self) -> bool:
        """Return whether it stands for others."""
        return "group" in self.config

    @property
    def members(self) -> tuple[str, ...]:
        """Return the names that a group stands for, those of groups within it included."""
        return tuple(members_of(self.config)) if self.is_group else ()

    @property
    def tags(self) -> tuple[str, ...]:
        """Return the names under which it can be asked for together with others."""
        return tuple(str(tag) for tag in as_list(self.config.get("tag")))

    @property
    def is_local(self) -> bool:
        """Return whether its items lie in files beside it."""
        return self.config.get("dataset_path") in BUILDERS

    def data_files(self) -> Mapping[str, tuple[Path, ...]]:
        """Return the files of each split, whether they are there or not."""
        arguments = self.config.get("dataset_kwargs")
        if not self.is_local or not isinstance(arguments, Mapping):
            return {}
        named = arguments.get("data_files")
        by_split = named if isinstance(named, Mapping) else {"train": named} if named else {}
        base = self.folder / str(arguments.get("data_dir") or ".")
        return {
            str(split): tuple(found for name in as_list(names) for found in _found(base, str(name)))
            for split, names in by_split.items()
        }

    def digest(self) -> str:
        """Return the sha256 of its definition, its items, and its code where it names any.

        Raises:
            UnreadableError: there is too much code.
        """
        sha = hashlib.sha256()
        for path in self.read:
            _add(sha, path)
        for split, paths in sorted(self.data_files().items()):
            sha.update(split.encode() + b"\0")
            for path in paths:
                _add(sha, path)
        own = (function for function in self.functions if not function.is_lm_evals)
        for folder in sorted({function.file.parent for function in own}):
            for path in code_of(folder):
                _add(sha, path, path.relative_to(folder).as_posix())
        return sha.hexdigest()


def read_definition(path: Path) -> Definition | None:
    """Return what a YAML file defines; None where it is no task and no group.

    A link is followed first, as lm-eval does: what it includes lies beside the file it leads to.

    Raises:
        UnreadableError: it, or a file that it includes, cannot be read; it has no proper name.
    """
    read: list[Path] = []
    functions: list[Function] = []
    path = _followed(path)
    config = _merged(path, read, functions, within=())
    named = config.get("group", config.get("task"))
    if named is None:
        return None
    if not isinstance(named, str) or not named:
        key = "group" if "group" in config else "task"
        raise UnreadableError(path, f"has a {key} that is no name but {named!r:.60}")
    return Definition(
        name=named,
        file=path,
        config=config,
        read=tuple(read),
        functions=tuple(functions),
    )


def _merged(
    path: Path, read: list[Path], functions: list[Function], *, within: tuple[Path, ...]
) -> dict[str, Any]:
    """Return what a file says over what it includes, as lm-eval has it: what is nearer wins."""
    if path in within:
        raise UnreadableError(within[0], f"includes itself, by way of '{path.name}'")
    if path in read:
        why = f"includes '{path}' twice, by way of others, which lm-eval does not. Include it once"
        raise UnreadableError(within[0], why)
    if len(read) >= _MOST_INCLUDES:
        raise UnreadableError(within[0], f"includes more than {_MOST_INCLUDES} files")
    values, named = read_yaml_with_functions(path)
    if not isinstance(values, dict):
        if not within:
            return {}
        raise UnreadableError(path, "is included and holds no mapping of names to values")
    read.append(path)
    functions += [Function(key=f.key, name=f.name, file=path, line=f.line) for f in named]
    merged: dict[str, Any] = {}
    for name in as_list(values.pop("include", None)):
        included = path.parent / str(name)
        if not is_there(included) or included.is_dir():
            raise UnreadableError(path, f"includes '{name}', and there is no '{included}'")
        merged |= _merged(_followed(included), read, functions, within=(*within, path))
    return merged | {str(key): value for key, value in values.items()}


def _followed(path: Path) -> Path:
    """Return the file that a link leads to; a link that leads nowhere is told where it is read."""
    return path.resolve() if is_there(path) else path


def _found(base: Path, name: str) -> list[Path]:
    """Return the files that a name means, which may be a pattern."""
    path = base / name
    if is_there(path) or name.startswith("/") or not any(sign in name for sign in "*?["):
        return [path]
    with suppress(ValueError, NotImplementedError, OSError):  # what is no pattern is a name
        return sorted(base.glob(name)) or [path]
    return [path]


def _add(sha: "hashlib._Hash", path: Path, called: str = "") -> None:
    """Add a file; one that cannot be read is refused by those who use it."""
    sha.update((called or path.name).encode(errors="surrogateescape") + b"\0")
    try:
        with open_regular(path) as file:
            sha.update(hashlib.file_digest(file, "sha256").digest())
    except UnreadableError:
        sha.update(b"absent")
