"""What a vLLM answers when it is asked what it can do (questions.py), and the memory of it.

Importing vLLM takes seconds, so the answers are kept for each environment, and asked again where
another vLLM was installed, the questions or the plugin changed, or the machine is another: a home
may be shared. What vLLM could not be imported for is not kept.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from harness.doors import write_atomically
from harness.engines import Abilities, questions
from harness.errors import PrerequisiteError
from harness.serve.vllm.arguments import PLUGIN
from harness.serve.vllm.environment import VllmEnvironment, run_inside
from harness.serve.vllm.options import (
    OF_VLLM,
    Option,
    Options,
    Permission,
    refuse_malformed,
    user_flags,
)

_log = logging.getLogger("harness.serve")
QUESTIONS = Path(__file__).with_name("questions.py")
DECLARATIONS = json.dumps(questions())
"""Of which it is asked what becomes of them."""
ASKING_SECONDS = 600
"""Importing vLLM takes 7 s on two cores, and much longer from a slow disk."""
_MOST_BYTES = 16 << 20


class Answers(NamedTuple):
    """What a vLLM said."""

    options: tuple[Option, ...] | None
    """Of its server's parser; None where `abilities.unknown` says why."""
    abilities: Abilities


@dataclass(frozen=True, kw_only=True, slots=True)
class _Adapters:
    """What harness's plugin says of the places that it looks for."""

    found: frozenset[str]
    missing: dict[str, str]
    mandatory: frozenset[str]


_SHAPES: Mapping[str, TypeAdapter[Any]] = {
    **dict.fromkeys(
        ("methods", "quant_algos", "schemes", "architectures", "by_transformers"),
        TypeAdapter(frozenset[str]),
    ),
    **dict.fromkeys(("linear_kernels", "expert_backends"), TypeAdapter(dict[str, tuple[str, ...]])),
    "loaders": TypeAdapter(dict[str, str]),
    "foretold": TypeAdapter(dict[str, dict[str, dict[str, str | int]]]),
    "options": TypeAdapter(tuple[Option, ...]),
    "adapters": TypeAdapter(_Adapters),
}


def ask_abilities(environment: VllmEnvironment) -> Answers:
    """Return what the environment's vLLM says of itself; asked once, and then remembered."""
    place = f"vLLM {environment.version} in '{environment.python}'"

    def ask() -> Said:
        _log.info("serve: %s is asked what it can do", place)
        arguments = (str(QUESTIONS), str(PLUGIN), DECLARATIONS)
        asked = run_inside(Path(environment.python), arguments, seconds=ASKING_SECONDS)
        return Said.of(asked.returncode, asked.stdout, asked.stderr)

    identity = (environment.python, environment.version, environment.platform, *environment.gpus)
    return read_answers(remembered(ask, *identity, environment.installed))


class Said(NamedTuple):
    """What the process printed that asked."""

    lines: str
    is_whole: bool
    """Whether vLLM could be imported, so that it is worth remembering."""
    last_words: str = ""
    """Of a process that died, the last line of its log."""

    @classmethod
    def of(cls, status: int, printed: str, errors: str) -> "Said":
        """Return what a process that has ended said."""
        words = errors.strip().splitlines() or [f"it ended with status {status}"]
        return cls(printed, status == 0, words[-1][:300] if status else "")


def read_answers(said: Said) -> Answers:
    """Read what questions.py printed; what is missing or has another shape is unknown."""
    known: dict[str, Any] = {}
    unknown = dict.fromkeys(_SHAPES, said.last_words or "it was not answered")
    for line in said.lines[:_MOST_BYTES].splitlines():
        try:
            answer = json.loads(line)
            name = str(answer["question"])
            if name in ("version", "platform"):
                if "unknown" in answer:  # then nothing else is answered
                    unknown = dict.fromkeys(_SHAPES, str(answer["unknown"])[:300])
            elif name in _SHAPES and "known" in answer:
                known[name] = _SHAPES[name].validate_python(answer["known"])
                unknown.pop(name, None)
            elif name in unknown:
                unknown[name] = str(answer["unknown"])[:300]
        except (ValueError, LookupError, TypeError, RecursionError, ValidationError) as error:
            _log.info("serve: an answer of vLLM's is not understood: %s", type(error).__name__)
    options: tuple[Option, ...] | None = known.pop("options", None)
    adapters: _Adapters | None = known.pop("adapters", None)
    abilities = Abilities(
        **known,
        flags=None if options is None else _flags(options),
        adapters=adapters.found if adapters else None,
        missing=adapters.missing if adapters else {},
        mandatory=adapters.mandatory if adapters else frozenset(),
        unknown=unknown,
    )
    return Answers(options, abilities)


def flags_of(
    arguments: tuple[str, ...],
    answers: Answers,
    *,
    place: str,
    permission: Permission = OF_VLLM,
) -> tuple[str, ...]:
    """Return the flags of a server that the user's arguments become.

    Args:
        arguments: `KEY=VALUE` each.
        answers: of the server's engine.
        place: how a message names it.
        permission: what of its options a user may set.

    Raises:
        UsageError: one is malformed, unknown, or not for the user to decide.
        PrerequisiteError: this engine did not tell its options.
    """
    refuse_malformed(arguments, permission)
    if not arguments:
        return ()
    if answers.options is None:
        why = answers.abilities.unknown.get("options", "")
        message = f"{place} did not tell its options ({why}). Leave --engine-arg."
        raise PrerequisiteError(message)
    return user_flags(arguments, Options(place=place, known=answers.options, permission=permission))


def _flags(options: tuple[Option, ...]) -> dict[str, frozenset[str]]:
    return {
        name: frozenset(one.choices) for one in options for name in (*one.names, *one.negations)
    }


_said: dict[str, Said] = {}
"""What was asked in this process, also what is not worth a file."""


def remembered(ask: Callable[[], Said], *identity: str) -> Said:
    """Return what `ask` says, asked once for each `identity`: an environment's or an image's."""
    named = "\n".join((*identity, _of_questions()))
    key = hashlib.sha256(named.encode(errors="replace")).hexdigest()
    kept = _place_of(key)
    if key in _said:
        return _said[key]
    try:
        if kept is not None and kept.is_file():
            return Said(kept.read_text(encoding="utf-8"), is_whole=True)
    except (OSError, ValueError):
        return ask()
    said = _said[key] = ask()
    if kept is not None and said.is_whole:
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(kept, said.lines)
        except OSError as error:
            _log.info("serve: what vLLM can do cannot be remembered: %s", error)
    return said


def _place_of(key: str) -> Path | None:
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # there is no home
        return None
    return root / "harness" / "engine-abilities" / f"{key}.jsonl" if root.is_absolute() else None


@cache
def _of_questions() -> str:
    """Return a digest of what asks (the script, the plugin that it asks) and of this processor."""
    files = (QUESTIONS, *sorted(PLUGIN.rglob("*.py")))
    content = b"\n".join((*(path.read_bytes() for path in files), _processor()))
    return hashlib.sha256(content + DECLARATIONS.encode()).hexdigest()


def _processor() -> bytes:
    """Return what this processor can do, which decides which kernels run on it."""
    try:
        told = Path("/proc/cpuinfo").read_bytes()
    except OSError:
        return b""
    return next((line for line in told.splitlines() if line.startswith(b"flags")), b"")
