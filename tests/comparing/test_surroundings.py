"""Where a run was at work is one of the things that could have made it another one."""

from dataclasses import replace

from harness.artifacts import Environment, Package, Part, Surroundings
from harness.comparing import compare_runs
from tests.comparing.conftest import Made, Make

LOST = frozenset(range(5))


def surroundings(
    *, host: str = "node1", theirs: str = "2.10.0", **packages: str
) -> tuple[Surroundings, ...]:
    """Return what harness was at work in; `theirs` is the torch of the server's environment."""
    ours = {"tqdm": "4.60.0", **packages}
    return (
        Surroundings(
            environments=(
                environment("harness", ours),
                environment("engine", {"torch": theirs, "vllm": "0.32.0"}),
            ),
            platform="Linux-6.1-x86_64",
            host=host,
        ),
    )


def environment(name: str, versions: dict[str, str]) -> Environment:
    packages = tuple(Package(name=n, version=v) for n, v in sorted(versions.items()))
    return Environment(name=name, python="3.12.1", packages=packages)


def made(*seen: Surroundings) -> Made:
    return Made(surroundings=seen, wrong=LOST)


def before() -> Made:
    return Made(surroundings=surroundings())


def test_another_host_is_a_cause_where_nothing_else_differs(make: Make) -> None:
    (now,) = surroundings(host="node2")
    found = compare_runs(make("a", before()), make("b", made(now)))
    (cause,) = found.causes
    assert (cause.part, [(d.what, d.a, d.b) for d in cause.differences]) == (
        Part.HOST,
        [("name", "node1", "node2")],
    )


def test_a_package_of_harness_is_named(make: Make) -> None:
    (now,) = surroundings(tqdm="4.61.0")
    found = compare_runs(make("a", before()), make("b", made(now)))
    (cause,) = found.causes
    assert (cause.part, [(d.what, d.a, d.b) for d in cause.differences]) == (
        Part.ENVIRONMENT,
        [("tqdm", "4.60.0", "4.61.0")],
    )


def test_a_package_of_the_server_is_the_engine_s(make: Make) -> None:
    (now,) = surroundings(theirs="2.11.0")
    found = compare_runs(make("a", before()), make("b", made(now)))
    (cause,) = found.causes
    assert (cause.part, [(d.what, d.a, d.b) for d in cause.differences]) == (
        Part.ENGINE,
        [("torch", "2.10.0", "2.11.0")],
    )


def test_a_run_that_was_resumed_elsewhere_names_both_hosts(make: Make) -> None:
    (first,) = surroundings()
    found = compare_runs(make("a", before()), make("b", made(first, replace(first, host="node2"))))
    (cause,) = found.causes
    assert [d.b for d in cause.differences] == ["node1, then node2"]


def test_a_run_that_does_not_say_where_it_was_made_is_not_compared_by_it(make: Make) -> None:
    found = compare_runs(make("a", Made()), make("b", made(*surroundings())))
    assert {Part.HOST, Part.ENVIRONMENT} <= set(found.unknown)
    assert found.causes == ()


def test_a_run_from_before_hosts_were_recorded_is_compared_by_its_packages(make: Make) -> None:
    (before_hosts,) = surroundings(host="", tqdm="4.61.0")
    found = compare_runs(make("a", before()), make("b", made(before_hosts)))
    assert Part.HOST in found.unknown
    assert [cause.part for cause in found.causes] == [Part.ENVIRONMENT]
