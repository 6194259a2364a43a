"""When a baseline is measured, what becomes of a failure, and of two servers that are too many."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from harness import arms, baselines, pipeline
from harness.arms import measuring as measuring_room
from harness.artifacts import Deployment, EngineSpec, Probe, ServerShare, SmokeSet
from harness.baselines import Missing
from harness.errors import EngineError, HarnessError, ReasonCode, ScoringError
from harness.models import digest_folder, open_source
from harness.preflight import GateJob, Together, Way
from harness.recipe import Request, load_suite, load_trial
from harness.rundir import RunDirectory
from tests.nouns import engine_spec
from tests.smoke.scripted import BASELINE, DEPLOYMENT, SET, candidate

SHARE = ServerShare(kv_bytes=1 << 30, utilization=0.3)
SHARED = engine_spec("vllm", device="cuda", share=SHARE)
BESIDE = Together(way=Way.BESIDE, why="both fit", share=SHARE, baseline_share=SHARE)
CROWDED = EngineError("CUDA out of memory", reason=ReasonCode.OUT_OF_MEMORY)
BROKEN = ScoringError("lm-eval has no task 'x'")


class World:
    """A store and a process that measures, as far as `Measuring` sees them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
        self.lacking = Missing(scores=True, rerun=True, answers=True)
        self.alive = False
        self.failure: HarnessError | None = None
        self.begun: list[EngineSpec] = []
        self.orders: list[arms.BaselineOrder] = []
        self.here: list[EngineSpec] = []
        """Engines with which it was measured in this process."""
        self.looks = 0
        self.on_look: Callable[[], None] = lambda: None
        self.path = path
        for name in ("measured_in_background", "measure_baseline", "probe_baseline", "read_probe"):
            monkeypatch.setattr(measuring_room, name, getattr(self, name))
        monkeypatch.setattr(measuring_room, "lacking_of", lambda _: self.lacking)
        monkeypatch.setattr(measuring_room, "_POLL_S", 0)

    def is_alive(self) -> bool:
        self.looks += 1
        self.on_look()
        return self.alive

    def wait(self) -> HarnessError | None:
        self.alive = False
        return self.failure

    @contextmanager
    def measured_in_background(self, order: arms.BaselineOrder) -> Iterator["World"]:
        self.begun.append(order.engine)
        self.orders.append(order)
        self.alive = True
        yield self

    def measure_baseline(self, order: arms.BaselineOrder) -> Path:
        self.here.append(order.engine)
        self.lacking = Missing(scores=False, rerun=False, answers=False)
        return self.path

    def probe_baseline(self, order: arms.BaselineOrder, prompts: SmokeSet) -> Probe:
        assert prompts == SET
        if self.lacking.answers:
            self.here.append(order.engine)
        return BASELINE

    def read_probe(self, _: Path, prompts: SmokeSet) -> Probe | None:
        assert prompts == SET
        return None if self.lacking.answers else BASELINE


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    monkeypatch.setenv("HARNESS_BASELINES", str(tmp_path / "store"))
    return World(monkeypatch, tmp_path)


def measuring(together: Together = BESIDE) -> arms.Measuring:
    suite = dataclasses.replace(load_suite("canary"), smoke=SET)
    source = open_source("canary")
    inputs = baselines.inputs_of(source, SHARED, suite)
    return arms.Measuring(arms.BaselineOrder(SHARED, source.path, suite, inputs), together)


def not_in_the_way() -> None:
    message = "the candidate's server was stopped"
    raise AssertionError(message)


@pytest.mark.parametrize("way", [Way.APART, Way.BESIDE])
def test_it_begins_once_where_both_fit(world: World, way: Way) -> None:
    with measuring(dataclasses.replace(BESIDE, way=way)) as one:
        assert (one.will_begin, one.has_begun) == (True, False)
        one.begin()
        one.begin()
        assert one.has_begun
        world.lacking = Missing(scores=False, rerun=False, answers=False)
        assert one.will_begin
    assert world.begun == [SHARED]


@pytest.mark.parametrize("way", [Way.IN_TURN, Way.ALONE])
def test_it_does_not_begin_where_both_do_not_fit(world: World, way: Way) -> None:
    with measuring(dataclasses.replace(BESIDE, way=way)) as one:
        one.begin()
        assert (one.will_begin, one.has_begun, one.comes_first) == (False, False, True)
    assert world.begun == []


def test_nothing_begins_where_nothing_is_missing(world: World) -> None:
    world.lacking = Missing(scores=False, rerun=False, answers=False)
    with measuring() as one:
        one.begin()
        assert (one.will_begin, one.has_begun) == (False, False)
        assert (one.comes_first, one.is_beside) == (False, False)


def test_answers_are_waited_for_as_long_as_it_is_measured(world: World) -> None:
    def answered() -> None:
        if world.looks == 3:
            world.lacking = world.lacking._replace(answers=False)

    world.on_look = answered
    with measuring() as one:
        one.begin()
        assert one.probe(SET, give_way=not_in_the_way) == BASELINE
    assert (world.looks, world.here) == (3, [])


def test_what_failed_for_good_is_raised_and_not_measured_again(world: World) -> None:
    with measuring() as one:
        one.begin()
        world.alive, world.failure = False, BROKEN
        for ask in (lambda: one.probe(SET, give_way=not_in_the_way), one.scores):
            with pytest.raises(ScoringError) as caught:
                ask()
            assert caught.value is BROKEN
    assert world.here == []


def test_what_found_no_memory_is_measured_by_itself(world: World) -> None:
    given_way: list[bool] = []
    with measuring() as one:
        one.begin()
        world.alive, world.failure = False, CROWDED
        assert one.probe(SET, give_way=lambda: given_way.append(True)) == BASELINE
    assert given_way == [True]
    assert [engine.share for engine in world.here] == [None]


def test_scores_that_found_no_memory_are_measured_by_themselves(world: World) -> None:
    with measuring() as one:
        one.begin()
        world.failure = CROWDED
        assert one.scores() == world.path
    assert [engine.share for engine in world.here] == [None]


def test_a_failure_after_all_was_measured_changes_nothing(world: World) -> None:
    with measuring() as one:
        one.begin()
        world.failure = BROKEN
        world.lacking = Missing(scores=False, rerun=False, answers=False)
        assert one.scores() == world.path


class Served(NamedTuple):
    deployment: Deployment


class Device:
    """Where the candidate is served: with memory for it, or not beside another server."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started: list[ServerShare | None] = []
        self.refuses: Callable[[], EngineError | None] = lambda: None
        self.dies: Callable[[], EngineError | None] = lambda: None
        monkeypatch.setattr("harness.arms.candidate.serve", self.serve)
        monkeypatch.setattr("harness.score.probe", self.probe)

    @contextmanager
    def serve(self, engine: EngineSpec, _: Path, **__: object) -> Iterator[Served]:
        self.started.append(engine.share)
        if (error := self.refuses()) is not None:
            raise error
        try:
            yield Served(DEPLOYMENT)
        except EngineError as error:
            explained = self.dies()
            if explained is None:
                raise
            raise explained from error

    def probe(self, *_: object, **__: object) -> Probe:
        if self.dies() is not None:
            message = "no answer"
            raise EngineError(message)
        return candidate()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(monkeypatch)


def the_candidate(path: Path, one: arms.Measuring) -> arms.Candidate:
    folder = path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    suite = dataclasses.replace(load_suite("canary"), smoke=SET)
    order = arms.CandidateOrder(SHARED, folder, digest_folder(folder), suite, path / "run")
    return arms.Candidate(order, one)


@pytest.mark.parametrize("when", ["refuses", "dies"])
def test_a_candidate_without_memory_is_started_again_when_the_baseline_is_measured(
    world: World, device: Device, tmp_path: Path, when: str
) -> None:
    setattr(device, when, lambda: CROWDED if world.alive else None)
    with measuring() as one, the_candidate(tmp_path, one) as served:
        one.begin()
        assert served.probe(SET) == candidate()
    assert device.started == [SHARE, None]
    assert not world.alive


@pytest.mark.parametrize("begins", [True, False])
def test_a_candidate_that_fails_otherwise_is_not_started_again(
    world: World, device: Device, tmp_path: Path, *, begins: bool
) -> None:
    device.dies = lambda: BROKEN_ENGINE if begins else CROWDED
    with measuring() as one, the_candidate(tmp_path, one) as served:
        if begins:
            one.begin()
        with pytest.raises(EngineError) as caught:
            served.probe(SET)
    assert str(caught.value) == str(BROKEN_ENGINE if begins else CROWDED)
    assert (len(device.started), world.here) == (1, [])


def begun(
    monkeypatch: pytest.MonkeyPatch, run: RunDirectory, together: Together
) -> pipeline.ComparedWith:
    """Return the baseline of a gate on two GPUs as its run begins."""
    monkeypatch.setattr(pipeline, "assign_gpus", lambda _: ((0,), (1,)))
    monkeypatch.setattr(pipeline, "plan_arms", lambda _: together)
    trial = load_trial(Request(model="canary", suite="canary", engine="vllm"), run.path)
    source = open_source("canary")
    job = GateJob(recipe=trial, checkpoint=source, baseline=source, scheme="NVFP4")
    with pipeline.started_baseline(job, run) as baseline:
        return baseline


@pytest.mark.parametrize("while_made", [True, False])
def test_a_baseline_begins_with_the_run_on_gpus_of_its_own(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, while_made: bool
) -> None:
    apart = Together(way=Way.APART, why="2 GPUs", while_made=while_made)
    baseline = begun(monkeypatch, RunDirectory(tmp_path), apart)
    assert len(world.begun) == while_made
    assert [order.gpus for order in world.orders] == [(1,)] * while_made
    assert baseline.measuring is not None


BROKEN_ENGINE = EngineError("the server ended with status 1 while it was in use")
