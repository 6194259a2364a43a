"""What messages tell a user to type exists: options of the command that was typed, and files."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
from typer.core import TyperGroup

from harness.cli import app

PACKAGE = Path(__file__).resolve().parents[2] / "harness"
DECLARED_IN = ("cli/options.py", "cli/release_app.py", "request.py")
"""Files that declare options, which are no messages."""

MAKES = ("e2e", "quantize")
SERVES = ("e2e", "gate", "serve", "score", "baseline add")
RUNS = ("e2e", "quantize", "gate", "drill")
PLACES: Mapping[str, tuple[str, ...]] = {
    "baselines/bundle.py": ("baseline export",),
    "baselines/scored.py": ("e2e", "gate"),
    "calibrate/": MAKES,
    "bisecting/": ("bisect",),
    "localizing/": ("localize",),
    "tuning/": ("tune",),
    "cli/app.py": ("",),
    "cli/bisect": ("bisect",),
    "cli/localiz": ("localize",),
    "cli/tun": ("tune",),
    "cli/differing.py": ("diff",),
    "cli/suite_app.py": ("suite new", "suite check"),
    "cli/judging.py": ("judge",),
    "cli/night": ("nightly",),
    "cli/deployments.py": ("gate",),
    "cli/foretelling.py": ("doctor",),
    "cli/releas": ("signoff",),
    "cli/serving.py": ("serve", "score"),
    "cli/several.py": ("quantize",),
    "cli/text.py": ("e2e", "gate"),
    "cli/verifying.py": ("verify",),
    "comparing/": ("diff",),
    "drill/": ("drill",),
    "engines/": SERVES,
    "export/": MAKES,
    "foreign/writing.py": ("report",),
    "foreign/": ("judge",),
    "gate/phrases.py": ("gate",),
    "making.py": MAKES,
    "nightly/": ("nightly",),
    "models/": MAKES,
    "nel/": ("e2e", "gate", "score", "baseline add", "suite check"),
    "cli/prefetch": ("prefetch",),
    "prefetching/": ("prefetch",),
    "preflight/baseline_job.py": ("baseline add",),
    "preflight/budget.py": ("e2e", "gate"),
    "preflight/deployments_job.py": ("gate",),
    "preflight/engine.py": ("e2e", "gate", "baseline add"),
    "preflight/gate_job.py": ("gate", "suite new"),
    "preflight/given.py": ("e2e", "gate", "suite new"),
    "preflight/job.py": MAKES,
    "preflight/nel_tasks.py": ("e2e", "gate", "score", "baseline add"),
    "preflight/together.py": ("e2e", "gate"),
    "proposing/": ("suite new",),
    "quantize/": MAKES,
    "ranks.py": MAKES,
    "recipe/load.py": MAKES,
    "recipe/plan.py": MAKES,
    "recipe/rules.py": MAKES,
    "recipe/suites.py": ("e2e", "gate", "judge"),
    "rundir.py": RUNS,
    "score/definitions.py": ("e2e", "gate", "score", "judge", "baseline add"),
    "score/endpoint.py": ("score",),
    "score/mistakes.py": ("e2e", "gate", "score", "judge", "baseline add"),
    "score/outline.py": ("suite new",),
    "score/prepare.py": ("e2e", "gate", "score", "baseline add"),
    "score/same_prompts.py": ("gate",),
    "serve/": SERVES,
    "signoff/demands.py": ("e2e", "gate"),
    "signoff/publishing.py": ("publish",),
    "signoff/upload.py": ("publish",),
    "signoff/": ("signoff",),
    "tasks/": ("e2e", "gate", "score", "judge", "baseline add", "suite new", "suite check"),
    "verify/": ("verify",),
}
"""The commands that may print the messages of a room or file."""

TYPED_BY_US: Mapping[str, str] = {
    "bisecting/": "git's, setup-vllm's and of the command that is tried",
    "comparing/parts.py": "of servers, whose addresses are no difference",
}
"""Places where an option that stands alone is an argument and no advice, and whose it is."""

ELSEWHERE: Mapping[tuple[str, str], str] = {
    ("artifacts/store.py", "--fresh"): "of the command that began the run, as the message says",
    ("bisecting/trial.py", "--recipe"): "of the command that is tried",
    ("cli/bisect_app.py", "--model"): "of the command that is tried",
    ("cli/bisect_app.py", "--qformat"): "of the command that is tried",
    ("cli/bisect_app.py", "--suite"): "of the command that is tried",
    ("cli/prefetches.py", "--find-links"): "pip's",
    ("cli/prefetches.py", "--no-index"): "pip's",
    ("cli/prefetches.py", "--quiet"): "of the program, before the command",
    ("foreign/lm_eval.py", "--log"): "lm-eval's --log_samples, of the run that is judged",
    ("foreign/lm_eval.py", "--samples"): "lm-eval's, of the run that is judged",
    ("nightly/matrix.py", "--baseline"): "of the gate that a cell is",
    ("nightly/slurm.py", "--dependency"): "sbatch's, in the script that is printed",
    ("nightly/running.py", "--run-dir"): "of what a cell types",
    ("preflight/engine.py", "--ranks"): "only where it was given",
    ("prefetching/collect.py", "--offline"): "of the command that is printed for the other side",
    ("prefetching/wheels.py", "--no-deps"): "pip's",
    ("prefetching/wheels.py", "--only-binary"): "pip's",
    ("recipe/load.py", "--budget"): "only where it was given",
    ("recipe/load.py", "--engine"): "only where an environment was named, which is an engine's",
    ("recipe/load.py", "--tensor-parallel-size"): "only where it was given",
    ("serve/in_process.py", "--device"): "`serve` and `drill` take what is there",
}
"""Options that a command of the place lacks, and why its message is right all the same."""

FOREIGN: Mapping[str, str] = {
    "--enforce-eager": "vLLM",
    "--gdn-prefill-backend": "vLLM",
    "--host": "vLLM",
    "--max-num-seqs": "vLLM",
    "--kv-cache-memory-bytes": "vLLM",
    "--gpu-memory-utilization": "vLLM",
    "--language-model-only": "vLLM",
    "--load-format": "vLLM",
    "--max-model-len": "vLLM",
    "--linear-backend": "vLLM",
    "--model": "vLLM",
    "--moe-backend": "vLLM",
    "--port": "vLLM",
    "--served-model-name": "vLLM",
    "--config": "SGLang",
    "--context-length": "SGLang",
    "--kv-cache-dtype": "SGLang",
    "--model-path": "SGLang",
    "--quantization": "SGLang",
    "--tp-size": "SGLang",
}
"""Options of other programs, which serve/ passes to them, each as a text of its own."""

NAMED = re.compile(r"(?<![\w(-])--[a-z][a-z0-9-]+")
PATHS = re.compile(r"(?<![\w/.-])(?:scripts|harness|docs|docker|recipes|evals)/[\w./-]*[\w/]")


class Message(NamedTuple):
    """A text in the code that is no docstring."""

    place: str
    line: int
    text: str


def _options() -> Mapping[str, frozenset[str]]:
    """Return the options of each command of the real command line."""
    found: dict[str, frozenset[str]] = {}

    def add(name: str, command: object) -> None:
        params = getattr(command, "params", [])
        found[name] = frozenset(o for p in params for o in (*p.opts, *p.secondary_opts))
        if isinstance(command, TyperGroup):
            for part, inner in command.commands.items():
                add(f"{name} {part}".strip(), inner)

    add("", typer.main.get_command(app))
    return found


OPTIONS = _options()
COMMAND = re.compile(
    rf"harness ({'|'.join(sorted(OPTIONS, key=len, reverse=True)).strip('|')})\b[^'`.\n]*$"
)
"""A command with what was typed behind it, up to where an option stands."""


def texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield each whole text; what an f-string fills in is a pair of braces."""
    inner: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inner |= {id(part) for part in node.values}
            parts = (p.value if isinstance(p, ast.Constant) else "{}" for p in node.values)
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            inner.add(id(node.value))
        elif isinstance(node, ast.Constant) and id(node) not in inner:
            yield node.lineno, node.value if isinstance(node.value, str) else ""


def messages() -> Iterator[Message]:
    for path in sorted(PACKAGE.rglob("*.py")):
        place = str(path.relative_to(PACKAGE))
        if place not in DECLARED_IN and not place.startswith("plugin/"):
            for line, text in texts(ast.parse(path.read_bytes())):
                example = any(text.startswith(f"{name} ") for name in OPTIONS if name)
                yield Message(place, line, f"harness {text}" if example else text)


MESSAGES = tuple(messages())


def place_of(message: Message) -> tuple[str, ...]:
    return next((c for place, c in PLACES.items() if message.place.startswith(place)), ())


def wrong_options(message: Message) -> Iterator[str]:
    """Yield the options in a message that whoever reads it cannot type."""
    for found in NAMED.finditer(message.text):
        option, before = found[0], message.text[: found.start()]
        named = COMMAND.search(before)
        commands = (named[1],) if named else place_of(message)
        if (message.place, option) in ELSEWHERE or _is_foreign(message, option):
            continue
        lacking = [name for name in commands if option not in OPTIONS[name]]
        if lacking or not commands:
            yield f"{message.place}:{message.line}: {option} is none of {lacking or 'any command'}"


def _is_foreign(message: Message, option: str) -> bool:
    is_alone = message.text.partition("=")[0].replace("_", "-").startswith(option)
    if is_alone and message.place.startswith(tuple(TYPED_BY_US)):
        return True
    return (
        option in FOREIGN
        and message.place.startswith(("engines/", "serve/"))
        and message.text == option
    )


def test_the_command_line_is_read() -> None:
    assert "--served-model" in OPTIONS["score"]
    assert "--out" in OPTIONS["baseline export"]


def test_every_option_that_a_message_names_is_one_of_its_command() -> None:
    assert [wrong for message in MESSAGES for wrong in wrong_options(message)] == []


def test_every_exception_is_needed() -> None:
    named = {(m.place, o) for m in MESSAGES for o in NAMED.findall(m.text)}
    assert not [key for key in ELSEWHERE if key not in named]
    foreign = {option for place, option in named if place.startswith(("engines/", "serve/"))}
    assert not FOREIGN.keys() - foreign


def test_every_file_that_a_message_names_exists() -> None:
    paths = [(m.place, m.line, path) for m in MESSAGES for path in PATHS.findall(m.text)]
    assert len(paths) > 3
    assert [p for p in paths if not (PACKAGE.parent / p[2].rstrip("./")).exists()] == []


@pytest.mark.parametrize(
    ("text", "place", "is_wrong"),
    [
        ("Name one with --model: {}.", "score/endpoint.py", True),
        ("Name one with --served-model: {}.", "score/endpoint.py", False),
        ("Use --fresh.", "cli/commands.py", True),
        ("'harness e2e --fresh' starts again.", "cli/commands.py", False),
        ("'harness judge --fresh' starts again.", "cli/commands.py", True),
        ("Type --no-such-option.", "verify/contents.py", True),
        ("Type --source.", "a_new_room/file.py", True),
    ],
)
def test_a_wrong_option_is_noticed(text: str, place: str, *, is_wrong: bool) -> None:
    assert bool(list(wrong_options(Message(place, 1, text)))) is is_wrong
