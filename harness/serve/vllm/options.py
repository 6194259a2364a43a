"""The options that a vLLM has, by its own parser, and what `--engine-arg KEY=VALUE` makes of them.

vLLM's parser takes abbreviations (`hos` for `host`), underscores, dotted parts of JSON, and a
value that looks like an option as one. So it is asked for its exact names, in its environment, and
every argument is passed as `--name=value` with one of them.
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from harness.errors import UsageError
from harness.serve.vllm.permitted import DECIDED, PERMITTED

_KEY = re.compile(r"[a-z][a-z0-9-]*")
_LONGEST_VALUE = 4000
_KINDS = {
    "int": re.compile(r"-?[0-9]{1,18}"),
    "size": re.compile(r"auto|-?[0-9]{1,18}|[0-9]{1,9}(\.[0-9]{1,9})?[kKmMgGtT]"),
    "float": re.compile(r"-?[0-9]{1,18}(\.[0-9]{0,18})?([eE][+-]?[0-9]{1,2})?"),
}
_BOOLEANS = {"true": True, "false": False}


class Permission(NamedTuple):
    """What a user may set of an engine's options, by their names without dashes."""

    decided: frozenset[str]
    """What harness decides itself."""
    permitted: Mapping[str, tuple[str, ...]]
    """By the first of an option's names: the values it may have; empty for any."""


OF_VLLM = Permission(DECIDED, PERMITTED)


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """One option of vLLM's parser; names without the dashes."""

    names: tuple[str, ...]
    """All long ones; the first is the name."""
    negations: tuple[str, ...]
    """Such as `no-enforce-eager`."""
    takes_value: bool
    kind: str
    """`int`, `size` (1k, 2G), `float`, `json` or `text`: what its value must be."""
    choices: tuple[str, ...]
    """The values that it takes; empty where any of its kind."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The options of one vLLM."""

    place: str
    """How a message names it."""
    known: tuple[Option, ...]
    permission: Permission = OF_VLLM

    def named(self, name: str) -> Option | None:
        """Return the option of exactly this name."""
        return next((one for one in self.known if name in (*one.names, *one.negations)), None)

    def near(self, name: str) -> str:
        """Return a hint with the permitted names that look like `name`."""
        names = [
            n for one in self.known for n in one.names if one.names[0] in self.permission.permitted
        ]
        begun = [n for n in names if n.startswith(name)]
        found = [*begun, *difflib.get_close_matches(name, names, n=3, cutoff=0.6)]
        listed = ", ".join(dict.fromkeys(found[:3]))
        return f" Did you mean {listed}?" if listed else ""


def refuse_malformed(arguments: Iterable[str], permission: Permission = OF_VLLM) -> None:
    """Refuse what needs no engine to be seen: a wrong form, and what harness decides.

    Raises:
        UsageError: with the argument.
    """
    for argument in arguments:
        _split(argument, permission)


def user_flags(arguments: Iterable[str], options: Options) -> tuple[str, ...]:
    """Translate `KEY=VALUE` to the engine's flags: `true` is `--key`, `false` is `--no-key`.

    A key that is given twice has its last value, so that a recipe's can be overridden.

    Raises:
        UsageError: one is malformed, unknown, or not for the user to decide.
    """
    flags: dict[str, str] = {}
    for argument in arguments:
        key, value = _split(argument, options.permission)
        option = options.named(key)
        if option is None:
            message = f"--engine-arg {key}: {options.place} has no option '{key}'."
            raise UsageError(message + options.near(key))
        name = option.names[0]
        _refuse_reserved(key, option.names, options.permission)
        if name not in options.permission.permitted:
            message = (
                f"--engine-arg {key}: '{name}' is none that may be set: it is not known to leave "
                "alone what is judged, what code runs and who is answered. Leave it out."
            )
            raise UsageError(message)
        if key in option.negations:
            message = f"--engine-arg '{argument}': write {name}=false."
            raise UsageError(message)
        flags[name] = _flag(argument, option, value, options.permission)
    return tuple(flags.values())


def _split(argument: str, permission: Permission) -> tuple[str, str]:
    name, separator, value = argument.partition("=")
    key = name.removeprefix("--").replace("_", "-").lower()
    if not separator or not value or not _KEY.fullmatch(key):
        message = f"--engine-arg {ascii(name)[:100]}: write KEY=VALUE, such as max-num-seqs=16."
        raise UsageError(message)
    if not value.isprintable() or len(value) > _LONGEST_VALUE:
        message = f"--engine-arg {key}: its value holds what cannot be printed, or is too long."
        raise UsageError(message)
    _refuse_reserved(key, (key, key.removeprefix("no-")), permission)
    return key, value


def _refuse_reserved(key: str, names: Iterable[str], permission: Permission) -> None:
    # The value is not shown: it may be a secret.
    for name in names:
        if name in permission.decided:
            message = (
                f"--engine-arg {key}: harness itself decides '{name}'. Leave it out; "
                "the length is the suite's, and GPUs are --tensor-parallel-size."
            )
            raise UsageError(message)


def _flag(argument: str, option: Option, value: str, permission: Permission) -> str:
    name = option.names[0]
    if option.takes_value:
        _refuse_value(argument, option, value, permission.permitted[name])
        return f"--{name}={value}"
    chosen = _BOOLEANS.get(value.lower())
    if chosen is None:
        message = f"--engine-arg '{argument}': write {name}=true or {name}=false."
        raise UsageError(message)
    if chosen:
        return f"--{name}"
    if not option.negations:
        message = f"--engine-arg '{argument}': it is off unless it is set. Leave it out."
        raise UsageError(message)
    return f"--{option.negations[0]}"


def _refuse_value(argument: str, option: Option, value: str, permitted: tuple[str, ...]) -> None:
    name, choices = option.names[0], option.choices
    taken = [c for c in choices if not permitted or c in permitted] if choices else permitted
    if taken and value not in taken and value.lower().replace("-", "_") not in taken:
        message = f"--engine-arg '{argument}': {name} is one of {', '.join(taken)}."
        raise UsageError(message)
    pattern = _KINDS.get(option.kind)
    is_wrong = pattern is not None and not pattern.fullmatch(value)
    if is_wrong or (option.kind == "json" and not _is_object(value)):
        words = {"json": "a JSON object"}.get(option.kind, "a number")
        message = f"--engine-arg '{argument}': the value of {name} is {words}."
        raise UsageError(message)


def _is_object(value: str) -> bool:
    try:
        return isinstance(json.loads(value), Mapping)
    except (ValueError, RecursionError):
        return False
