"""`harness judge` on inspect_ai's logs: the paired tables by hand, and every refusal.

The logs were written by inspect_ai 0.3.285 with a local provider whose wrong items are known. The
.jsonl files beside them are what its library read of them, so that most tests need no library.
"""

import copy
import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError, PrerequisiteError, UnreadableError
from harness.foreign import Recorded, pair_recorded, read_recorded, suite_of_recorded
from harness.foreign.inspect_ai import recorded_of
from harness.foreign.inspect_logs import Log, logs_of_lines, read_logs
from harness.gate import judge
from tests.foreign_results.conftest import DATA
from tests.tiers import slow
from tests.typed import typed

LOGS = DATA / "inspect_ai"
Arms = tuple[list[Log], list[Log]]
Change = Callable[[list[Log]], object]


def kept(arm: str) -> list[Log]:
    files = sorted((LOGS / arm).glob("*.eval"))
    lines = (LOGS / f"{arm}.jsonl").read_text().splitlines()
    return logs_of_lines(files, (json.loads(line) for line in lines))


@pytest.fixture
def logs() -> Arms:
    return kept("baseline"), kept("candidate")


def recorded(logs: Arms) -> tuple[Recorded, Recorded]:
    return recorded_of(Path("baseline"), logs[0]), recorded_of(Path("candidate"), logs[1])


def verdict(logs: Arms, margin: float = 0.02) -> Any:  # noqa: ANN401 -- of the gate
    baseline, candidate = recorded(logs)
    suite = suite_of_recorded(baseline, candidate, margin)
    pairing = pair_recorded(baseline, candidate, suite, is_named=False)
    found = judge(suite, pairing.baseline, pairing.candidate, verified=True)
    return {task.task: task for task in found.tasks}, found


def refusal(logs: Arms) -> str:
    with pytest.raises(HarnessError) as error:
        verdict(logs)
    assert error.value.exit_code == 2
    return str(error.value)


def of_task(logs: list[Log], name: str) -> Log:
    return next(log for log in logs if log.header["eval"]["task"] == name)


def change(logs: list[Log], name: str, index: int, **values: object) -> None:
    sample: Any = of_task(logs, name).samples[index]
    sample.update(values)


BY_HAND = {
    # 20 sums, of which the baseline has 3 and 11 wrong, the candidate 3, 4, 7 and 15.
    "sums20": (18 / 20, 16 / 20, 3, 1),
    # 20 choices, of which the baseline has 5 wrong, the candidate 2 and 9.
    "pick20": (19 / 20, 18 / 20, 2, 1),
    # The same sums three times; the wrong ones are right the first time.
    "epochs20": ((18 + 2 / 3) / 20, (16 + 4 / 3) / 20, 3, 1),
    # Half a point for each of the last two digits: of the wrong ones the first stays right, but
    # in 19 + ... no sum here carries, so that each costs a half.
    "partial20": (18.5 / 20, 17.5 / 20, 3, 1),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_the_table_is_the_one_made_by_hand(logs: Arms, name: str) -> None:
    baseline, candidate, lost, won = BY_HAND[name]
    task = verdict(logs)[0][name]
    assert (task.num_items, task.num_lost, task.num_won) == (20, lost, won)
    assert task.baseline == pytest.approx(baseline)
    assert task.candidate == pytest.approx(candidate)


def test_an_answer_that_was_cut_is_known(logs: Arms) -> None:
    (sums, *_) = (task for task in recorded(logs)[0].tasks if task.name == "sums20")
    assert [a.item for a in sums.answers if a.finish == "length"] == ["sum-15"]
    reasons = [gap.reason for gap in recorded(logs)[0].gaps]
    assert reasons == ["load-not-reconciled", "kernels-unknown"]


def test_epochs_are_repeats_of_one_item(logs: Arms) -> None:
    (task,) = (task for task in recorded(logs)[0].tasks if task.name == "epochs20")
    assert (len(task.answers), task.num_items) == (60, 20)
    assert {answer.repeat for answer in task.answers} == {0, 1, 2}


def test_repeats_that_a_suite_does_not_ask_for_are_refused(logs: Arms) -> None:
    baseline, candidate = recorded(logs)
    suite = suite_of_recorded(baseline, candidate, 0.02)
    once = tuple(dataclasses.replace(spec, repeats=1) for spec in suite.tasks)
    suite = dataclasses.replace(suite, tasks=once)
    with pytest.raises(HarnessError, match="was asked 3 times, and the suite asks 1 times"):
        pair_recorded(baseline, candidate, suite, is_named=False)


def test_generated_tokens_are_kept(logs: Arms) -> None:
    assert {a.num_tokens for task in recorded(logs)[0].tasks for a in task.answers} == {2}


def test_guessing_one_of_two_choices_is_half_right(logs: Arms) -> None:
    chances = {task.name: task.chance for task in recorded(logs)[0].tasks}
    assert (chances["pick20"], chances["sums20"]) == (0.5, 0.0)


@pytest.mark.parametrize(
    ("value", "share"),
    [("C", 1.0), ("P", 0.5), ("I", 0.0), ("N", 0.0), ("yes", 1.0), ("0.25", 0.25), (True, True)],
)
def test_values_are_what_inspect_ai_counts_them_as(logs: Arms, value: object, share: float) -> None:
    change(logs[1], "pick20", 0, scores={"choice": value})
    (task,) = (task for task in recorded(logs)[1].tasks if task.name == "pick20")
    first = next(answer for answer in task.answers if answer.item == "1")
    assert list(first.values.values()) == [share]


@pytest.mark.parametrize("value", ["nan", "good", None, [1, 0], 7])
def test_a_value_that_is_no_fraction_is_named(logs: Arms, value: object) -> None:
    change(logs[1], "pick20", 4, scores={"choice": value})
    text = refusal(logs)
    assert f"task 'pick20', item 5: metric choice is {value!r}, no number between 0 and 1" in text


@pytest.mark.parametrize("value", ["--5", "+-1", "1.2.3", "9" * 5000, "-", "."])
def test_a_text_that_is_nearly_a_number_is_named(logs: Arms, value: str) -> None:
    change(logs[1], "pick20", 4, scores={"choice": value})
    assert f"item 5: metric choice is {value!r:.40}, no number" in refusal(logs)


def test_an_item_named_by_many_digits_is_one(logs: Arms) -> None:
    for arm in logs:
        change(arm, "pick20", 4, id="7" * 5000)
    assert verdict(logs)[0]["pick20"].num_items == 20


def test_a_grade_says_which_way_it_runs_and_a_number_does_not(logs: Arms) -> None:
    baseline, candidate = recorded(logs)
    suite = suite_of_recorded(baseline, candidate, 0.02)
    scope = " ".join(pair_recorded(baseline, candidate, suite, is_named=False).scope)
    assert "in partial20 more is taken for better: inspect_ai does not record it" in scope
    assert "in sums20 more is taken" not in scope


def test_a_sample_without_a_score_is_named(logs: Arms) -> None:
    change(logs[1], "pick20", 4, scores={})
    assert "item 5: metric choice is None" in refusal(logs)


def test_a_scorer_of_several_values_is_several_metrics(logs: Arms) -> None:
    for arm in logs:
        for sample in of_task(arm, "pick20").samples:
            sample["scores"] = {"grader": {"facts": "C", "style": 0.5}}  # type: ignore[index]
    found = verdict(logs)[0]["pick20"]
    assert (found.baseline, found.candidate) == (1.0, 1.0)


def test_a_request_that_failed_is_unknown_and_not_wrong(logs: Arms) -> None:
    change(logs[1], "pick20", 0, error="connection lost", scores={})
    task = verdict(logs)[0]["pick20"]
    assert (task.num_items, task.reason) == (19, "request-errors")


DIFFERENCES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "tool": (lambda h: h["eval"]["packages"].update(inspect_ai="0.3.1"), "inspect_ai's version"),
    "package": (lambda h: h["eval"]["packages"].update(inspect_evals="1"), "inspect_evals's"),
    "task": (lambda h: h["eval"].update(task_version=2), "the task's version"),
    "arguments": (lambda h: h["eval"].update(task_args={"fewshot": 5}), "the task's arguments"),
    "seed": (lambda h: h["plan"]["config"].update(seed=8), "the generation argument seed"),
    "temperature": (
        lambda h: h["plan"]["config"].update(temperature=1.0),
        "the generation argument temperature",
    ),
    "solver": (lambda h: h["plan"]["steps"].append({"solver": "self_critique"}), "the solvers"),
    "scorer": (lambda h: h["eval"]["scorers"][0].update(name="exact"), "the scorers"),
    "grader": (lambda h: h["eval"].update(model_roles={"grader": {"model": "a/b"}}), "roles"),
    "epochs": (lambda h: h["eval"]["config"].update(epochs=2), "epochs"),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_other_conditions_are_refused_by_name(logs: Arms, name: str) -> None:
    made, said = DIFFERENCES[name]
    made(of_task(logs[1], "sums20").header)  # type: ignore[arg-type]
    text = refusal(logs)
    assert "the arms differ in" in text
    assert said in text


def test_how_requests_are_sent_changes_nothing(logs: Arms) -> None:
    of_task(logs[1], "sums20").header["plan"]["config"]["max_connections"] = 64
    assert verdict(logs)[0]["sums20"].num_lost == 3


def test_another_prompt_is_refused(logs: Arms) -> None:
    change(logs[1], "sums20", 2, prompt=[["user", "Be brief."]])
    assert "prompt_hash differs" in refusal(logs)


def test_another_target_is_refused(logs: Arms) -> None:
    change(logs[1], "sums20", 2, target="99")
    assert "doc_hash differs" in refusal(logs)


def test_a_missing_item_is_refused(logs: Arms) -> None:
    log = of_task(logs[1], "sums20")
    log.header["results"]["total_samples"] = 19
    del log.samples[6]  # type: ignore[attr-defined]
    assert "the candidate has no answer to item 'sum-6'" in refusal(logs)


def test_an_item_that_is_there_twice_is_refused(logs: Arms) -> None:
    log = of_task(logs[1], "sums20")
    log.header["results"]["total_samples"] = 21
    log.samples.append(copy.deepcopy(log.samples[6]))  # type: ignore[attr-defined]
    assert "the candidate has item 'sum-6' twice" in refusal(logs)


def test_fewer_samples_than_were_asked_are_refused(logs: Arms) -> None:
    of_task(logs[1], "sums20").samples.pop()  # type: ignore[attr-defined]
    assert "has 19 of 20 samples" in refusal(logs)


def test_scores_without_samples_are_refused(logs: Arms) -> None:
    of_task(logs[1], "sums20").samples.clear()  # type: ignore[attr-defined]
    assert "has scores and no samples" in refusal(logs)


@pytest.mark.parametrize("status", ["started", "cancelled", "error"])
def test_a_run_that_did_not_end_well_is_refused(logs: Arms, status: str) -> None:
    of_task(logs[1], "sums20").header["status"] = status  # type: ignore[index]
    assert f"has the status '{status}'" in refusal(logs)


def test_a_run_that_was_declared_invalid_is_refused(logs: Arms) -> None:
    of_task(logs[1], "sums20").header["invalidated"] = True  # type: ignore[index]
    assert "was declared invalid" in refusal(logs)


def test_a_part_of_a_task_is_refused(logs: Arms) -> None:
    for arm in logs:
        of_task(arm, "sums20").header["eval"]["config"]["limit"] = 20
    assert "20 items alone were asked (limit 20)" in refusal(logs)


def test_several_models_in_one_folder_are_refused(logs: Arms) -> None:
    of_task(logs[1], "sums20").header["eval"]["model"] = "local/other"
    assert "holds logs of 2 models: local/cand, local/other" in refusal(logs)


def test_one_run_in_both_places_is_refused(logs: Arms) -> None:
    assert "hold the same run" in refusal((logs[0], logs[0]))


def test_one_model_in_both_places_is_refused(logs: Arms) -> None:
    for arm in logs:
        for log in arm:
            log.header["eval"]["model"] = "vllm/one"
    assert "are of the same model 'vllm/one'" in refusal(logs)


def test_of_several_runs_the_latest_counts_and_is_named(logs: Arms) -> None:
    again = copy.deepcopy(of_task(logs[0], "sums20"))
    again.header["eval"]["created"] = "2027-01-01T00:00:00+00:00"
    for sample in again.samples:
        sample["scores"]["match"] = "I"
    logs[0].append(again)
    assert verdict(logs)[0]["sums20"].baseline == 0.0
    assert "2 logs are of sums20" in recorded(logs)[0].notes[0]


def test_scores_that_were_edited_are_spoken_of(logs: Arms) -> None:
    change(logs[1], "sums20", 0, edited=["match"])
    assert "scores of 1 samples" in recorded(logs)[1].notes[0]


def test_arms_of_two_tools_are_refused(logs: Arms) -> None:
    lm_eval = read_recorded(DATA / "lm_eval" / "baseline")
    candidate = recorded(logs)[1]
    with pytest.raises(HarnessError, match="were scored by lm-eval, those in"):
        pair_recorded(
            lm_eval, candidate, suite_of_recorded(candidate, candidate, 0.1), is_named=False
        )


def test_an_archive_that_would_grow_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zipfile  # noqa: PLC0415 -- of this test alone

    monkeypatch.setenv("HARNESS_INSPECT", "/bin/false")
    bomb = tmp_path / "a.eval"
    with zipfile.ZipFile(bomb, "w") as archive:
        archive.writestr("header.json", bytes(16))
        archive.getinfo("header.json").file_size = 1100 << 20  # as it says of itself
    with pytest.raises(UnreadableError, match="more than the 1073741824 of any such"):
        read_logs([bomb])


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", b"no archive", b"PK\x03\x04" + bytes(99)])
def test_what_is_no_archive_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setenv("HARNESS_INSPECT", "/bin/false")
    (tmp_path / "a.eval").write_bytes(content)
    with pytest.raises(UnreadableError, match="is no archive of inspect_ai"):
        read_logs([tmp_path / "a.eval"])


def test_without_the_library_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_INSPECT", raising=False)
    monkeypatch.setattr("harness.foreign.inspect_logs.find_spec", lambda _: None)
    with pytest.raises(PrerequisiteError, match="bin/pip install inspect-ai"):
        read_recorded(LOGS / "baseline")


@pytest.fixture
@slow("inspect_ai's own library reads each log, in a process that takes seconds to begin")
def library(monkeypatch: pytest.MonkeyPatch) -> str:
    from importlib.util import find_spec  # noqa: PLC0415 -- of this fixture alone

    named = os.environ.get("HARNESS_INSPECT", "")
    if find_spec("inspect_ai") is None and not named:
        pytest.skip("no inspect_ai here: HARNESS_INSPECT names a Python that has it")
    monkeypatch.setenv("HARNESS_INSPECT", named)
    return named


def test_the_library_reads_what_the_other_tests_rest_on(library: str) -> None:
    del library
    for arm in ("baseline", "candidate"):
        files = sorted((LOGS / arm).glob("*.eval"))
        assert [log.samples for log in read_logs(files)] == [log.samples for log in kept(arm)]


def test_typed_by_a_user_logs_are_judged(library: str) -> None:
    del library
    done = typed("judge", LOGS / "baseline", LOGS / "candidate", "--margin", 0.02, "--json")
    assert done.code == 5
    assert {t["task"]: t["num_lost"] for t in done.json["tasks"]}["sums20"] == 3


def test_a_log_that_is_damaged_is_refused(library: str, tmp_path: Path) -> None:
    del library
    whole = next((LOGS / "baseline").glob("*.eval")).read_bytes()
    middle = len(whole) // 2
    (tmp_path / "a.eval").write_bytes(whole[:middle] + bytes(64) + whole[middle + 64 :])
    with pytest.raises(UnreadableError, match="cannot be read by inspect_ai"):
        read_logs([tmp_path / "a.eval"])
