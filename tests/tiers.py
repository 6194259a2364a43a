"""Two tiers of tests: the quick ones that `scripts/check` runs, and all (`scripts/check --full`).

A test's tier follows from the fixtures that it uses, directly or through others. What is slow is
made by a fixture, which says so where it is defined:

    @pytest.fixture(scope="session")
    @slow("loads eleven checkpoints into a real vLLM")
    def driven(...) -> ...:

`pytest --quick` leaves out the tests that use such a fixture, except those of KEPT, and fails if a
test that is left takes more than CPU_SECONDS by itself. Without it every test runs.
"""

import gc
import importlib
import inspect
import multiprocessing
import resource
import subprocess
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import pytest

KEPT = {
    "tests/cli/test_main_job.py::test_typed_by_a_user_it_ends_go": (
        "one run of the main job on the canary, from recipe to verdict"
    ),
    "tests/cli/test_vllm.py::test_both_arms_ran_on_servers_that_are_known_to_the_bit": (
        "one run on real vLLM servers, from start to verdict"
    ),
    "tests/drill/test_end_to_end.py::test_the_seed_incident_is_caught_by_either_of_two_stages": (
        "one fault of the drill"
    ),
    "tests/localizing/test_stages.py::test_the_layer_that_parts_first_is_named": (
        "one fault whose stage is named"
    ),
}
"""Tests that are quick though they use something slow, and why."""

CPU_SECONDS = 10.0
"""What a quick test may take: its call and its own fixtures, in all threads and ended processes.

No quick test takes half of it where nothing else runs; on a busy machine one took twice its own.
"""

IMPORTED_BEFORE = (
    "harness.score.run",
    "harness.cli.commands",
    "harness.cli.serving",
    "harness.report.plots",
)
"""What takes seconds to import: the first test that uses it is not to pay for it."""

NUM_SHOWN = 15

Fixture = TypeVar("Fixture", bound=Callable[..., object])
_reasons: dict[Callable[..., object], str] = {}


def slow(reason: str) -> Callable[[Fixture], Fixture]:
    """Put every test that uses this fixture into the full tier; below @pytest.fixture."""

    def declare(fixture: Fixture) -> Fixture:
        if not inspect.isfunction(fixture):
            message = f"@slow stands below @pytest.fixture, above the function itself: {fixture}"
            raise TypeError(message)
        _reasons[fixture] = reason
        return fixture

    return declare


def slow_fixtures(item: pytest.Item) -> dict[str, str]:
    """What is slow among all fixtures that a test uses, and why.

    A test that asks for a fixture while it runs names it in a parameter.
    """
    if not isinstance(item, pytest.Function):
        return {}
    defined = dict(item._fixtureinfo.name2fixturedefs)  # noqa: SLF001  # no other way to them
    if "request" in item.fixturenames and hasattr(item, "callspec"):
        named = tuple(one for one in item.callspec.params.values() if isinstance(one, str))
        manager = item.session._fixturemanager  # noqa: SLF001  # the same
        defined |= manager.getfixtureclosure(item, named, ignore_args=set())[1]
    used = ((name, fixture.func) for name, all_ in defined.items() for fixture in all_[-1:])
    return {name: _reasons[made] for name, made in used if made in _reasons}


def is_kept(nodeid: str) -> bool:
    return nodeid.partition("[")[0] in KEPT


def quick(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Return the quick ones; what is KEPT takes longest, so it comes first, and its file too."""
    chosen = [item for item in items if is_kept(item.nodeid) or not slow_fixtures(item)]
    first = {file_of(one) for one in chosen if is_kept(one.nodeid)}
    return sorted(chosen, key=lambda one: (file_of(one) not in first, not is_kept(one.nodeid)))


def file_of(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick",
        action="store_true",
        help="leave out the tests that use a slow fixture, and hold the others to their tier",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("quick"):
        return
    chosen = quick(items)
    config.hook.pytest_deselected(items=list(set(items) - set(chosen)))
    items[:] = chosen


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("quick"):
        config.pluginmanager.register(Meter())
        if not hasattr(config, "workerinput"):
            config.pluginmanager.register(Limit())


def cpu_seconds() -> float:
    """What this process and those of its children that have ended have used, in all threads."""
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    used = [resource.getrusage(who) for who in whose]
    return sum(one.ru_utime + one.ru_stime for one in used)


class Meter:
    """Notes a test's CPU-seconds in its report, but for the fixtures that it shares with others."""

    def __init__(self) -> None:
        self._file = ""
        self._started = 0.0
        self._shared = 0.0

    def pytest_collection_finish(self) -> None:
        for module in IMPORTED_BEFORE:
            importlib.import_module(module)

    def pytest_runtest_logstart(self, location: tuple[str, int | None, str]) -> None:
        if location[0] != self._file:
            # Imports and the tests themselves are a million objects that stay: looking for garbage
            # among them again and again, as what is tested does, would take most of the time.
            gc.collect()
            gc.freeze()
            self._file = location[0]
        # A child that an earlier test left counts once it is waited for: now, and not in this test.
        multiprocessing.active_children()
        subprocess._cleanup()  # type: ignore[attr-defined]  # noqa: SLF001  # no public one
        self._started, self._shared = cpu_seconds(), 0.0

    def pytest_sessionfinish(self) -> None:
        gc.unfreeze()

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[object]) -> Iterator[None]:
        before, already = cpu_seconds(), self._shared
        try:
            return (yield)
        finally:
            if fixturedef.scope != "function":
                self._shared = already + cpu_seconds() - before

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        try:
            return (yield)
        finally:
            own = cpu_seconds() - self._started - self._shared
            item.user_properties.append(("cpu_seconds", round(own, 2)))


class Limit:
    """Fails a session in which a test was too slow for its tier, and names the slowest."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self._seconds[report.nodeid] = float(str(dict(report.user_properties)["cpu_seconds"]))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._over() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("slowest of the quick tests, in CPU-seconds")
        slowest = sorted(self._seconds.items(), key=lambda one: -one[1])[:NUM_SHOWN]
        for nodeid, seconds in slowest:
            terminalreporter.line(f"{seconds:6.2f} {nodeid}")
        for nodeid in self._over():
            terminalreporter.line(
                f"FAILED {nodeid}: {self._seconds[nodeid]:.1f} CPU-seconds, a quick test has "
                f"{CPU_SECONDS:.0f}. Make it cheaper, or make what is slow in a fixture that is "
                "declared slow (tests/tiers.py)."
            )

    def _over(self) -> list[str]:
        taken = self._seconds.items()
        return [one for one, seconds in taken if seconds > CPU_SECONDS and not is_kept(one)]
