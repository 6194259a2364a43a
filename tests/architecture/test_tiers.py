"""Which tests are quick follows from the fixtures that they use, and what is quick stays quick."""

import ast
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import tiers

TESTS = Path(__file__).resolve().parents[1]
CONFTEST = """
from tests.tiers import pytest_addoption, pytest_collection_modifyitems, pytest_configure
"""
SAMPLE = """
import time
import pytest
from tests.tiers import slow

def work():
    until = time.process_time() + 0.15
    while time.process_time() < until:
        pass

@pytest.fixture(scope="session")
@slow("a server")
def server():
    return 1

@pytest.fixture
def client(server):
    return server

@pytest.fixture(scope="session")
def shared():
    work()

def test_plain(): pass
def test_direct(server): pass
def test_through_another(client): pass
@pytest.mark.usefixtures("server")
def test_by_mark(): pass
@pytest.mark.parametrize("name", ["client"])
def test_by_name(request, name): request.getfixturevalue(name)
@pytest.mark.parametrize("name", ["client"])
def test_of_a_word(name): pass
def test_kept(client): pass
def test_shared(shared): pass
def test_of_a_slow_kind(): work()
"""
ALONE = ("-p", "no:cacheprovider", "-p", "no:xdist")
Run = Callable[..., tuple[int, list[str]]]


class Names:
    """The tests that a session of pytest has chosen."""

    def __init__(self) -> None:
        self.items: list[pytest.Item] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.items = list(session.items)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the sample's tests; return pytest's exit code and the names of those that were chosen."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_sample.py").write_text(SAMPLE)
    kept = f"{tmp_path.name}/test_sample.py::test_kept"
    monkeypatch.setattr(tiers, "KEPT", {kept: "one is enough"})

    def inner(*arguments: str) -> tuple[int, list[str]]:
        names = Names()
        options = [f"--rootdir={tmp_path.parent}", "-c", os.devnull, "--import-mode=importlib"]
        code = pytest.main([str(tmp_path), *options, *ALONE, *arguments], [names])
        return int(code), [item.name for item in names.items]

    return inner


def test_what_uses_something_slow_directly_or_not_is_not_quick(run: Run) -> None:
    _, names = run("--quick")
    quick = {"test_kept", "test_plain", "test_shared", "test_of_a_slow_kind"}
    assert set(names) == quick | {"test_of_a_word[client]"}


def test_what_is_kept_runs_first(run: Run) -> None:
    _, names = run("--quick")
    assert names[0] == "test_kept"


def test_without_the_option_every_test_runs(run: Run) -> None:
    code, names = run()
    assert (code, len(names)) == (pytest.ExitCode.OK, 9)


def test_a_quick_test_that_takes_long_fails_the_session_and_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tiers, "CPU_SECONDS", 0.1)
    code, _ = run("--quick")
    assert code == pytest.ExitCode.TESTS_FAILED
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAILED")]
    assert len(failed) == 1
    assert "::test_of_a_slow_kind: " in failed[0]


def test_what_tests_share_is_charged_to_none_of_them(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiers, "CPU_SECONDS", 0.1)
    code, names = run("--quick", "-k", "test_shared")
    assert (code, names) == (pytest.ExitCode.OK, ["test_shared"])


def test_slow_above_the_fixture_is_refused() -> None:
    with pytest.raises(TypeError, match="stands below"):
        tiers.slow("why")(pytest.fixture(lambda: None))


@pytest.fixture(scope="module")
def collected() -> list[pytest.Item]:
    """All tests there are."""
    names = Names()
    options = ["--collect-only", "-q", *ALONE]
    assert pytest.main([str(TESTS), *options], [names]) == pytest.ExitCode.OK
    return names.items


def test_every_test_that_uses_something_slow_is_left_out_but_for_those_that_are_kept(
    collected: list[pytest.Item],
) -> None:
    slow = {item.nodeid for item in collected if tiers.slow_fixtures(item)}
    quick = {item.nodeid for item in tiers.quick(collected)}
    assert slow & quick == set(tiers.KEPT)


def test_an_e2e_a_real_server_and_a_fault_of_the_drill_and_of_a_stage_are_quick() -> None:
    rooms = [nodeid.split("/")[1:] for nodeid in tiers.KEPT]
    assert [room[0] for room in rooms] == ["cli", "cli", "drill", "localizing"]
    assert all(tiers.KEPT.values())


def test_no_test_is_put_into_a_tier_by_hand() -> None:
    assert [found for path in TESTS.rglob("test_*.py") for found in marks(path)] == []


def marks(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pytest.mark":
            if node.attr in {"quick", "full", "slow", "fast"}:
                yield f"{path}:{node.lineno}"
        elif isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            decorators = [ast.unparse(one) for one in node.decorator_list]
            if any(one.startswith(("slow(", "tiers.slow(")) for one in decorators):
                yield f"{path}:{node.lineno}"
