"""The rules of the house that no linter knows; each fails with the place to look at."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from transformers import CONFIG_MAPPING

from harness import shipped
from harness.cli import app
from harness.errors import HarnessError, ReasonCode
from harness.recipe import load_suite, recipe_names
from harness.recipe.schema import RecipeFile, read_yaml
from tests.tiers import slow

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "harness"
ROOMS = """
    recipe preflight calibrate quantize export verify serve score gate report models formats tasks
""".split()  # noqa: SIM905 -- a name a line would be a screen
SOURCES = sorted(PACKAGE.rglob("*.py"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_is_at_most_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_function_is_at_most_60_lines(path: Path) -> None:
    long = [
        f"{node.name}: {(node.end_lineno or 0) - node.lineno + 1}"
        for node in functions(path)
        if (node.end_lineno or 0) - node.lineno + 1 > 60
    ]
    assert not long


def test_no_model_family_is_named() -> None:
    """Structure is found; what must be known stands in one file, with its reasons."""
    names = {name for name in CONFIG_MAPPING if "_" in name or re.search(r"[a-z]\d", name)}
    pattern = re.compile(rf"['\"]({'|'.join(map(re.escape, sorted(names)))})['\"]")
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in SOURCES
        if path.name not in {"exceptions.py", "declaration.py"}  # the latter: engines' own rule
        for match in pattern.finditer(path.read_text(encoding="utf-8"))
    ]
    assert not found


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_a_readme_and_says_what_is_public(room: str) -> None:
    assert (PACKAGE / room / "README.md").is_file()
    assert "__all__" in (PACKAGE / room / "__init__.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_is_called_like_its_file(name: str) -> None:
    path = shipped.recipes() / f"{name}.yaml"
    assert read_yaml(path, RecipeFile, HarnessError).name == name  # type: ignore[arg-type]  # any class will do


@pytest.mark.parametrize("path", sorted(shipped.suites().glob("*.yaml")), ids=lambda p: p.stem)
def test_a_suite_is_called_like_its_file(path: Path) -> None:
    assert load_suite(str(path)).name == path.stem
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["version"] == 1


def test_every_reason_code_is_used_and_stands_in_the_readme() -> None:
    code = (
        "".join(p.read_text(encoding="utf-8") for p in SOURCES if p.name != "errors.py")
        + (PACKAGE / "errors.py").read_text(encoding="utf-8").partition("class HarnessError")[2]
    )
    unused = [c.name for c in ReasonCode if f"ReasonCode.{c.name}" not in code]
    unlisted = [c.value for c in ReasonCode if f"`{c.value}`" not in README]
    assert (unused, unlisted) == ([], [])


def test_the_readme_is_at_most_160_lines() -> None:
    assert len(README.splitlines()) <= 160


PAGES = [
    page
    for page in sorted(ROOT.rglob("*.md"))
    if not any(part.startswith(".") or part == "runs" for part in page.relative_to(ROOT).parts)
]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_a_page_links_to_is_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    files = [link.partition("#")[0] for link in links if "://" not in link]
    assert [name for name in files if name and not (page.parent / name).exists()] == []


def test_every_command_stands_in_the_readme() -> None:
    names = [c.name or (c.callback.__name__ if c.callback else "") for c in app.registered_commands]
    assert [n for n in names if f"harness {n}" not in README] == []


@pytest.mark.parametrize(
    ("module", "late"),
    [
        ("harness.cli", {"torch", "transformers", "lm_eval", "numpy"}),
        ("harness.cli.commands", {"transformers", "lm_eval", "matplotlib", "sklearn"}),
        ("harness.cli.serving", {"transformers", "lm_eval", "matplotlib", "sklearn"}),
        ("harness.cli.verifying", {"torch", "transformers", "lm_eval", "matplotlib", "sklearn"}),
    ],
)
def test_what_takes_seconds_is_imported_when_it_is_used(module: str, late: set[str]) -> None:
    program = f"import sys, {module}\nprint(sorted({late} & set(sys.modules)))\n"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert done.stdout == b"[]\n"


@pytest.fixture
@slow("a process of its own imports transformers and builds a model")
def modules_of_building() -> set[str]:
    """The modules that are imported where a model is built."""
    program = """
import sys
from harness.models import open_source, read_inventory
read_inventory(open_source("canary"))
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    return set(done.stdout.decode().split())


def test_a_model_is_built_without_what_is_not_used(modules_of_building: set[str]) -> None:
    assert "transformers" in modules_of_building
    assert not {"sklearn", "pandas", "scipy"} & modules_of_building


def test_nothing_deserializes_code_or_runs_a_shell() -> None:
    words = [r"torch\.load\(", "import pickle", "shell=True", r"os\.system", r"\beval\("]
    banned = re.compile("|".join([*words, "trust_remote_code=True"]))
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in SOURCES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if banned.search(line) and ".eval()" not in line
    ]
    assert not found
