"""What --plan says of a server's time, and that its rates are those that were measured."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.artifacts import EngineSpec
from harness.cli import text
from harness.preflight import Job, asking_time, estimate, preflight, serving_time, summarize
from harness.preflight.making_time import MakingTime
from harness.preflight.serving_time import declared_times
from harness.recipe import Request
from harness.stopwatch import TimeRange, exactly

ROOT = Path(__file__).resolve().parents[2]
GPU = EngineSpec(
    name="vllm", numerics="deployed", device="cuda", dtype="bfloat16", version="0.25.0"
)
EAGER = ("enforce-eager=true",)
Planned = Callable[..., Job]


@pytest.fixture(scope="module")
def planned() -> Planned:
    """Return a function that plans a run of the canary, on a vLLM that need not be there."""
    jobs: dict[str, Job] = {}

    def job(qformat: str = "nvfp4", **changed: Any) -> Job:  # noqa: ANN401 - fields of the engine
        if qformat not in jobs:
            request = Request(model="canary", qformat=qformat, engine="reference", device="cpu")
            jobs[qformat] = preflight(request)
        engine = dataclasses.replace(GPU, **changed)
        recipe = dataclasses.replace(jobs[qformat].recipe, engine=engine)
        return dataclasses.replace(jobs[qformat], recipe=recipe)

    return job


def measured(checkpoint: str) -> dict[str, str]:
    """Return what the ledger says of one checkpoint in vLLM on an H200."""
    rows = map(json.loads, (ROOT / "evals" / "ledger.jsonl").read_text("utf-8").splitlines())
    values: dict[str, str]
    (values,) = (
        row["values"]
        for row in rows
        if row["claim"] == "A checkpoint in vLLM, by arithmetic"
        and f"serve {checkpoint} " in row["command"]
        and "H200" in row["hardware"]
    )
    return values


@pytest.mark.parametrize(
    ("checkpoint", "layers", "numerics", "speed"),
    [
        ("/dev/shm/big/run/checkpoint", 40, "deployed", asking_time.EAGER),  # noqa: S108 - a name
        ("/dev/shm/big/run/checkpoint", 40, "declared", asking_time.EMULATED),  # noqa: S108
        ("/tmp/m8/run/checkpoint", 8, "deployed", asking_time.DEPLOYED),  # noqa: S108
    ],
)
def test_the_rates_are_those_of_the_ledger(
    checkpoint: str, layers: int, numerics: str, speed: asking_time.Speed
) -> None:
    found = measured(checkpoint)
    for part, rate in (("prompts", speed.prompt), ("answers", speed.answer)):
        tokens = float(found[f"{numerics}: {part}"].removesuffix(" tokens/s"))
        assert rate == pytest.approx(layers * tokens, rel=0.05)


def test_the_time_of_loading_is_that_of_the_ledger() -> None:
    found = measured("/dev/shm/big/run/checkpoint")["deployed: weights loaded"]  # noqa: S108
    seconds = float(found.split()[0])
    assert seconds == pytest.approx(asking_time.TENSOR_S * 124_576, rel=0.05)


def deeper(job: Job, layers: int) -> Job:
    """Return the job with a model of more layers."""
    text_config: Any = job.source.config["text_config"]
    config = {**job.source.config, "text_config": {**text_config, "num_hidden_layers": layers}}
    return dataclasses.replace(job, source=dataclasses.replace(job.source, config=config))


def test_emulation_costs_what_its_answers_take_longer(planned: Planned) -> None:
    deployed, declared, eager = (
        deeper(planned(**changed), 400)
        for changed in ({}, {"numerics": "declared"}, {"arguments": EAGER})
    )
    assert declared_times(deployed) == declared_times(declared)
    graphs, without = declared_times(deployed), declared_times(eager)
    assert graphs is not None
    assert without is not None
    assert 0.8 < without < 1.05 < graphs < 3
    one, other = serving_time.serving_time(deployed), serving_time.serving_time(declared)
    assert other.candidate.low_s > one.candidate.low_s
    assert other.baseline == one.baseline


def test_deployed_kernels_that_hide_inputs_are_smoked_in_emulation_besides(
    planned: Planned,
) -> None:
    deployed, declared = planned(), planned(numerics="declared")
    least, most = serving_time.ABOUT
    one, other = serving_time.serving_time(deployed), serving_time.serving_time(declared)
    assert one.smoke.low_s - other.smoke.low_s > least * (asking_time.START_S - 1)
    assert one.smoke.high_s - other.smoke.high_s > most * (asking_time.START_S - 1)


def test_a_small_model_waits_for_http_whatever_computes_it(planned: Planned) -> None:
    assert declared_times(planned()) == 1.0


@pytest.mark.parametrize(
    ("qformat", "changed"),
    [
        ("fp8", {}),
        ("w4a16_nvfp4", {}),
        ("nvfp4", {"device": "cpu", "version": "0.32.0"}),
        ("nvfp4", {"name": "reference"}),
    ],
)
def test_nothing_is_said_where_numerics_take_the_same_kernels(
    planned: Planned, qformat: str, changed: dict[str, str]
) -> None:
    job = planned(qformat, **changed)
    assert declared_times(job) is None
    summary = summarize(job)
    assert summary.declared_times is None
    assert "emulated" not in text.of_plan(summary)


def test_the_plan_says_what_declared_numerics_cost(planned: Planned) -> None:
    job = planned()
    summary = summarize(job)
    assert summary.declared_times == declared_times(job)
    times = f"{summary.declared_times:.1f} times"
    assert f"--numerics declared is emulated here: answers take {times}" in text.of_plan(summary)
    seconds = summary.stage_seconds
    assert seconds["score candidate"] < seconds["score baseline"], "which is answered again in part"


def test_longer_answers_and_more_layers_take_longer(planned: Planned) -> None:
    job = planned()
    deep = deeper(job, 4000)
    thinking = dataclasses.replace(job.recipe.suite, thinking_budget=100_000)
    long = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, suite=thinking))
    for other in (deep, long):
        for part, more in zip(
            serving_time.serving_time(job), serving_time.serving_time(other), strict=True
        ):
            assert more.low_s >= part.low_s
        assert serving_time.serving_time(other).candidate.low_s > 10 * (
            serving_time.serving_time(job).candidate.low_s
        )


def test_a_plan_says_each_time_from_one_machine_left_alone_to_one_as_busy(planned: Planned) -> None:
    times = {
        "calibrate": TimeRange(low_s=3 * 60, high_s=5 * 60),
        "export": TimeRange(low_s=0.1, high_s=0.9),
        "verify": TimeRange(low_s=90, high_s=200),
        "smoke": exactly(15.2),
    }
    said = text.of_plan(dataclasses.replace(summarize(planned()), stage_ranges=times))
    assert "calibrate        3 to 5 min" in said
    assert "export           under 1 s" in said
    assert "verify           90 s to 3.3 min" in said
    assert "smoke            15 s\n" in said
    assert "total            4.8 to 8.6 min" in said


def test_a_plan_on_a_busy_machine_says_that_it_cannot_say(
    planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    making = MakingTime(TimeRange(low_s=700, high_s=6.3 * 3600), TimeRange(low_s=2, high_s=3))
    monkeypatch.setattr(estimate, "making_time", lambda _: making)
    summary = summarize(planned())
    assert summary.unsaid == ("calibrate",)
    assert summary.stage_ranges["export"] == TimeRange(low_s=2, high_s=3)
    busy = "calibrate        cannot be said: the machine is busy (from 12 min, left alone, to 6.3 h"
    assert busy in text.of_plan(summary)


def test_what_a_busy_machine_takes_for_arithmetic_it_takes_for_answers_too(
    planned: Planned,
) -> None:
    job = planned(device="cpu", version="0.32.0")
    alone, busy = (serving_time.serving_time(job, slower) for slower in (1.0, 4.0))
    assert busy.candidate.low_s == alone.candidate.low_s
    assert busy.candidate.high_s == pytest.approx(4 * alone.candidate.high_s)
    assert alone.candidate.can_be_said
    assert not busy.candidate.can_be_said
