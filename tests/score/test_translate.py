"""Metrics and groups as the suite says they are, from what lm-eval logs."""

from collections.abc import Callable
from math import sqrt
from pathlib import Path

import pytest

from harness.artifacts import Sample, TaskSpec
from harness.errors import ScoringError
from harness.score.recording import Finish, Recorder
from harness.score.translate import to_samples, to_score

Make = Callable[..., TaskSpec]


def samples_of(spec: TaskSpec, values: list[object], **doc: object) -> tuple[Sample, ...]:
    recorder = Recorder()
    logged = []
    for number, value in enumerate(values):
        recorder.note((spec.name, number, 0), Finish.STOP)
        entry = {
            "doc_id": number,
            "doc": {"question": "?", **doc},
            "filter": "none",
            "doc_hash": "d",
            "prompt_hash": "p",
            "target_hash": "t",
            "arguments": [("prompt", {"until": []})],
            "target": "answer",
            "resps": [["answer"]],
            "exact_match": value,
        }
        logged.append(entry)
    return to_samples({spec.name: logged}, spec, recorder)


@pytest.mark.parametrize(
    ("value_range", "values", "shares"),
    [
        (None, [0, 1, True, 1.0], [0, 1, 1, 1]),
        ((0.0, 100.0), [0, 25.0, 100, 12.5], [0, 0.25, 1, 0.125]),
        ((8.0, 0.0), [8, 4.0, 0, 2], [0, 0.5, 1, 0.75]),
    ],
)
def test_values_are_shares_of_the_range_from_worst_to_best(
    spec: Make,
    value_range: tuple[float, float] | None,
    values: list[object],
    shares: list[float],
) -> None:
    made = samples_of(spec(value_range=value_range), values)
    assert [sample.value for sample in made] == shares


@pytest.mark.parametrize(
    ("value_range", "value", "said"),
    [
        (None, 0.5, "neither 0 nor 1"),
        (None, 2, "neither 0 nor 1"),
        ((0.0, 100.0), 100.5, "not between 0 and 100"),
        ((0.0, 100.0), -1, "not between 0 and 100"),
        ((0.0, 1.0), float("nan"), "not between 0 and 1"),
        ((0.0, 1.0), (0.5, 1), "not between 0 and 1"),
    ],
)
def test_a_value_that_the_suite_does_not_know_is_refused(
    spec: Make, value_range: tuple[float, float] | None, value: object, said: str
) -> None:
    with pytest.raises(ScoringError, match=said):
        samples_of(spec(value_range=value_range), [0, 1, 1, value])


def test_an_items_group_is_the_field_that_the_suite_names(spec: Make) -> None:
    made = samples_of(spec(cluster="subject", clusters=2), [1, 0, 1, 1], subject="law")
    assert {sample.cluster for sample in made} == {"law"}
    assert {sample.cluster for sample in samples_of(spec(), [1, 0, 1, 1], subject="law")} == {""}


def test_the_standard_error_is_that_of_the_values(spec: Make, tmp_path: Path) -> None:
    """For 0 and 1 it is the proportion's: sqrt(3/4 x 1/4 / 3)."""
    file = tmp_path / "samples" / "x.jsonl"
    file.parent.mkdir()
    file.touch()
    binary = to_score(spec(), samples_of(spec(), [1, 1, 0, 1]), num_prompts_cut=0, file=file)
    assert binary.stderr == pytest.approx(sqrt(0.75 * 0.25 / 3))
    valued = spec(value_range=(0.0, 1.0))
    shares = samples_of(valued, [0.5, 0.5, 0.25, 0.75])
    score = to_score(valued, shares, num_prompts_cut=0, file=file)
    assert score.value == 0.5
    assert score.stderr == pytest.approx(sqrt(0.125 / 4 / 3))
