"""YAML that people wrote: values only, each key once, no deep nesting, few aliases.

The text is gone through twice, first as a plain series of events, because the loader itself follows
nesting by recursion. An alias is how a file of 300 bytes becomes a billion values, so these are
counted as often as they occur.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from harness.errors import UnreadableError
from harness.reading import bounds
from harness.reading.opened import as_utf8, read_bytes
from harness.reading.values import refuse_beyond

_Base: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's is ten times faster, and not everywhere."""
_FUNCTION = "!function"
_OF_VALUES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What PyYAML raises where a scalar does not fit its tag, such as a date of month 13."""


class FunctionName(str):
    """The name of a Python function behind `!function`; nothing here looks for it or calls it."""

    __slots__ = ()


class NamedFunction(NamedTuple):
    """Where a YAML file names a Python function."""

    key: str
    """Of the whole mapping, below which it stands."""
    name: str
    line: int
    """From 1 on."""


def read_yaml_file(path: Path) -> object:
    """Return the value in a YAML file.

    Raises:
        UnreadableError: it cannot be read within the bounds, with the line.
    """
    return read_yaml_text(read_bytes(path, most=bounds.YAML_BYTES), f"'{path}'")


def read_yaml_documents(path: Path) -> list[object]:
    """Return the values in a YAML file of several documents.

    Raises:
        UnreadableError: it cannot be read within the bounds, with the line.
    """
    where = f"'{path}'"
    return _documents(as_utf8(read_bytes(path, most=bounds.YAML_BYTES), where), where)


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping of texts to values in a YAML file.

    Raises:
        UnreadableError: it cannot be read within the bounds, or holds something else.
    """
    value = read_yaml_file(path)
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise UnreadableError(path, "holds no mapping of names to values")
    return value


def read_yaml_text(text: bytes | str, where: str) -> object:
    """Return the value in a YAML text.

    Raises:
        UnreadableError: it cannot be read within the bounds, with the line.
    """
    decoded = as_utf8(text, where) if isinstance(text, bytes) else text
    found = _documents(decoded, where)
    if len(found) > 1:
        raise UnreadableError(where, "holds more than one document")
    return found[0] if found else None


def read_yaml_with_functions(path: Path) -> tuple[object, tuple[NamedFunction, ...]]:
    """Return the value in a YAML file, and each `!function NAME` in it, as lm-eval has it.

    Functions are taken from the text, not from the value: lm-eval imports one as well where it is
    part of a key, or of a merged mapping (`<<`) whose keys are given again.

    Raises:
        UnreadableError: it cannot be read within the bounds, with the line.
    """
    where = f"'{path}'"
    text = as_utf8(read_bytes(path, most=bounds.YAML_BYTES), where)
    found = _documents(text, where, _FunctionLoader)
    if len(found) > 1:
        raise UnreadableError(where, "holds more than one document")
    return (found[0], tuple(_functions(text))) if found else (None, ())


def _documents(text: str, where: str, loader: type[yaml.SafeLoader] | None = None) -> list[object]:
    try:
        _refuse_nesting(text, where)
        values: list[object] = list(yaml.load_all(text, Loader=loader or _Loader))
    except yaml.YAMLError as error:
        raise UnreadableError(where, f"is not YAML that can be read: {_line(error)}") from error
    except _OF_VALUES as error:
        why = f"holds a value that does not fit its kind: {str(error)[:100]}"
        raise UnreadableError(where, why) from error
    refuse_beyond(values, where, most=bounds.YAML_VALUES)
    return values


class _Loader(_Base):  # type: ignore[valid-type, misc]  # chosen when this is run
    """Takes a key once."""

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002 -- PyYAML's
    ) -> dict[Hashable, Any]:
        """Return a mapping.

        Raises:
            YAMLError: it has a key twice.
        """
        seen: set[object] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue  # refused by PyYAML, or a key that nothing here reads
            key = key_node.tag, key_node.value
            if key in seen:
                mark = key_node.start_mark
                what = f"the key '{key_node.value[:80]}' is given twice"
                raise yaml.constructor.ConstructorError(None, None, what, mark)
            seen.add(key)
        values: Mapping[Hashable, Any] = super().construct_mapping(node, deep=deep)
        return dict(values)


class _FunctionLoader(_Loader):
    """Takes lm-eval's `!function` too."""


def _function(loader: yaml.SafeLoader, node: yaml.Node) -> FunctionName:
    if not isinstance(node, yaml.ScalarNode):
        what = "!function stands before something that is no name"
        raise yaml.constructor.ConstructorError(None, None, what, node.start_mark)
    return FunctionName(loader.construct_scalar(node))


_FunctionLoader.add_constructor(_FUNCTION, _function)


def _functions(text: str) -> Iterator[NamedFunction]:
    root = yaml.compose(text, Loader=_Base) if "!" in text else None
    seen: set[int] = set()
    for section in root.value if isinstance(root, yaml.MappingNode) else ():
        for node in _nodes_below(section, seen):
            if node.tag == _FUNCTION:
                key, line = str(section[0].value), node.start_mark.line + 1
                yield NamedFunction(key=key, name=str(node.value), line=line)


def _nodes_below(nodes: Sequence[yaml.Node], seen: set[int]) -> Iterator[yaml.Node]:
    """Yield some nodes and all that are in them, keys too, each once however often it is named."""
    waiting = [*reversed(nodes)]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, yaml.MappingNode):
            waiting += [part for pair in reversed(node.value) for part in reversed(pair)]
        elif isinstance(node, yaml.SequenceNode):
            waiting += reversed(node.value)


def _refuse_nesting(text: str, where: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Base):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > bounds.DEPTH:
            raise UnreadableError(where, f"is nested more than {bounds.DEPTH} levels deep")


def _line(error: yaml.YAMLError) -> str:
    """Return what is wrong, and in which line, in one line."""
    what = " ".join(str(getattr(error, "problem", None) or error).split())[:200]
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return f"{what}, in line {mark.line + 1}" if mark else what
