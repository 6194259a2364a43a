"""The comparison of two arms' probes: what passes, what is an alarm, and what says nothing."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.artifacts import Mode, Probe, Severity, SmokeReport, load, save
from harness.errors import ReasonCode, RejectedError
from harness.smoke import compare, refuse_failed
from tests.smoke.scripted import (
    BASELINE,
    GOOD_ANSWERS,
    KNOWN,
    OPEN,
    SET,
    candidate,
    check_of,
    english_salad,
    errors,
    reading,
    readings,
    replies,
    report_of,
    rounded,
    salad,
)

SURFACE = {
    *("smoke-repetition", "smoke-compression", "smoke-scripts", "smoke-dominance"),
    *("smoke-empties", "smoke-length", "smoke-garbage"),
}
TOKENS = {"smoke-nll", "smoke-nll-passage", "smoke-top-1", "smoke-kld"}
KNOWN_CHECKS = {"smoke-known-answers", "smoke-known-answers-sampled"}
SALAD_ANSWERS = {name: english_salad(text, 7) for name, text in GOOD_ANSWERS.items()}


def open_answers(make: Callable[[str], str]) -> Probe:
    return candidate(replies=replies(GOOD_ANSWERS | {n: make(t) for n, t in OPEN.items()}))


def test_a_good_candidate_passes_every_check() -> None:
    report = report_of(candidate())
    assert [check.id for check in report.checks if not check.passed] == []
    assert report.passed
    refuse_failed(report)


def test_a_baseline_that_is_asked_again_differs_in_nothing() -> None:
    report = report_of(dataclasses.replace(BASELINE, arm="candidate"))
    assert all(abs(measure.difference) < 1e-9 for measure in report.measures)
    assert report.passed


def test_word_salad_in_english_is_normal_on_the_surface_and_caught_below_it() -> None:
    report = report_of(candidate(readings=readings(salad), replies=replies(SALAD_ANSWERS)))
    assert errors(report) == TOKENS | KNOWN_CHECKS
    assert all(check_of(report, name).passed for name in SURFACE)


def test_salad_that_happens_to_know_the_answers_is_betrayed_by_its_probabilities() -> None:
    lucky = {name: f"{english_salad(KNOWN[name], 1)} {KNOWN[name]}" for name in KNOWN}
    report = report_of(candidate(readings=readings(salad), replies=replies(SALAD_ANSWERS | lucky)))
    assert errors(report) == TOKENS


def test_salad_where_no_probabilities_are_given_is_betrayed_by_known_answers() -> None:
    blind = dataclasses.replace(BASELINE, readings=())
    report = report_of(candidate(readings=(), replies=replies(SALAD_ANSWERS)), blind)
    assert errors(report) == KNOWN_CHECKS


def test_what_was_not_run_has_not_passed() -> None:
    report = report_of(candidate(readings=()), dataclasses.replace(BASELINE, readings=()))
    assert not report.errors
    assert not report.passed
    for name in TOKENS | {"smoke-tokenizer", "smoke-log-probabilities"}:
        check = check_of(report, name)
        assert (check.passed, check.severity) == (False, Severity.WARNING)
        assert check.message.startswith("not run")


@pytest.mark.parametrize("baseline", [None, dataclasses.replace(BASELINE, set_digest="old")])
def test_a_baseline_without_answers_to_this_set_proves_nothing(baseline: Probe | None) -> None:
    report = compare(SET, baseline, candidate(), numerics="deployed")
    assert [check.passed for check in report.checks] == [False]
    assert not report.passed


@pytest.mark.parametrize(
    ("make", "caught"),
    [
        (lambda text: (text.split()[0] + " again and ") * 20, {"smoke-repetition"}),
        (lambda text: "!" * len(text), {"smoke-compression", "smoke-dominance"}),
        (lambda text: "1\n" * (len(text) // 2), {"smoke-compression", "smoke-dominance"}),
        (lambda text: "Да 水 ก Ω ქ ა あ ب ह" * (len(text) // 20), {"smoke-scripts"}),
        (lambda text: text[:20], {"smoke-length"}),
        (lambda text: text * 5, {"smoke-length"}),
        (
            lambda text: "\ufffd\u0378" * (len(text) // 4) + text[len(text) // 2 :],
            {"smoke-garbage"},
        ),
    ],
    ids=["loop", "one letter", "one line", "scripts", "short", "long", "garbage"],
)
def test_answers_that_degenerate_are_named_by_the_check_of_it(
    make: Callable[[str], str], caught: set[str]
) -> None:
    report = report_of(open_answers(make))
    assert caught <= errors(report) <= SURFACE


def test_answers_that_say_nothing_are_caught_in_one_mode_alone() -> None:
    silent = [
        dataclasses.replace(reply, text="") if reply.mode is Mode.SAMPLED else reply
        for reply in candidate().replies
    ]
    report = report_of(candidate(replies=tuple(silent)))
    assert {"smoke-empties", "smoke-known-answers-sampled"} <= errors(report)
    assert check_of(report, "smoke-known-answers").passed


def test_a_log_probability_that_is_not_finite_is_an_error_and_no_number() -> None:
    broken = reading("p3", rounded)
    broken = dataclasses.replace(broken, logprobs=(None, *broken.logprobs[1:]))
    others = tuple(r for r in readings(rounded) if r.passage != "p3")
    report = report_of(candidate(readings=(*others, broken)))
    assert errors(report) == {"smoke-log-probabilities"}
    assert check_of(report, "smoke-log-probabilities").examples == ("p3",)


def test_a_server_that_fails_at_every_passage_leaves_nothing_to_compare() -> None:
    failed = [
        dataclasses.replace(r, logprobs=(), top=(), error="HTTP 500: Out of range float values")
        for r in readings()
    ]
    report = report_of(candidate(readings=tuple(failed)))
    assert errors(report) == {"smoke-log-probabilities"}
    assert "Out of range" in check_of(report, "smoke-log-probabilities").message
    assert not check_of(report, "smoke-nll").passed
    assert not report.passed


def test_a_passage_that_the_baseline_cannot_read_is_not_held_against_the_candidate() -> None:
    first, *others = BASELINE.readings
    partly = (dataclasses.replace(first, logprobs=(), top=(), error="no"), *others)
    report = report_of(candidate(), dataclasses.replace(BASELINE, readings=partly))
    assert report.passed


def test_a_baseline_that_read_one_passage_alone_is_compared_with_nothing() -> None:
    last = BASELINE.readings[-1]
    failed = [
        dataclasses.replace(one, logprobs=(), top=(), error="no answer within 300 s")
        for one in BASELINE.readings[:-1]
    ]
    salads = tuple(reading(one.passage, salad) for one in failed)
    report = report_of(
        candidate(readings=(*salads, reading(last.passage, rounded))),
        dataclasses.replace(BASELINE, readings=(*failed, last)),
    )
    assert not report.passed
    assert "could not read 11 of 12 passages" in check_of(report, "smoke-nll").message


def test_another_tokenizer_is_named_and_not_compared_by_position() -> None:
    other = dataclasses.replace(reading("p0", rounded), tokens=tuple(range(3, 33)))
    report = report_of(candidate(readings=(other, *readings(rounded)[1:])))
    assert errors(report) == {"smoke-tokenizer"}


def test_one_kind_of_text_that_breaks_is_caught_though_the_mean_is_fine() -> None:
    broken = tuple(
        reading(r.passage, salad if r.passage == "p5" else rounded) for r in BASELINE.readings
    )
    report = report_of(candidate(readings=broken))
    assert "smoke-nll-passage" in errors(report)
    assert "p5" in check_of(report, "smoke-nll-passage").message


def test_a_difference_within_its_error_bars_is_no_alarm() -> None:
    """One token of one passage is very wrong, which says nothing about the others."""
    wrong = reading("p0", rounded)
    wrong = dataclasses.replace(wrong, logprobs=(-80.0, *wrong.logprobs[1:]))
    report = report_of(candidate(readings=(wrong, *readings(rounded)[1:])))
    (nll,) = [measure for measure in report.measures if measure.name == "smoke-nll"]
    assert nll.difference > nll.limit
    assert errors(report) == set()


def test_questions_that_the_baseline_does_not_know_are_not_counted() -> None:
    few = dict.fromkeys(list(KNOWN)[:6], "I do not know.")
    baseline = dataclasses.replace(BASELINE, replies=replies(GOOD_ANSWERS | few))
    report = report_of(
        candidate(replies=replies(GOOD_ANSWERS | dict.fromkeys(KNOWN, "?"))), baseline
    )
    assert not KNOWN_CHECKS & errors(report)
    assert check_of(report, "smoke-known-answers").message.startswith("not run")


def test_one_lost_answer_is_no_alarm_and_two_of_ten_are() -> None:
    one, two = (dict.fromkeys(list(KNOWN)[:count], "?") for count in (1, 2))
    assert report_of(candidate(replies=replies(GOOD_ANSWERS | one))).passed
    assert errors(report_of(candidate(replies=replies(GOOD_ANSWERS | two)))) == {
        "smoke-known-answers"
    }


def test_answers_that_are_right_alone_and_wrong_among_others_are_caught() -> None:
    among = GOOD_ANSWERS | dict.fromkeys(list(KNOWN)[:3], "?")
    modes = (Mode.GREEDY, Mode.SAMPLED)
    mixed = (*replies(GOOD_ANSWERS, modes), *replies(among, (Mode.BATCHED,)))
    report = report_of(candidate(replies=mixed))
    assert errors(report) == {"smoke-known-answers", "smoke-batching"}


def test_requests_that_failed_are_counted_apart() -> None:
    first, *others = candidate().replies
    failed = dataclasses.replace(first, text="", finish="error", error="HTTP 500")
    report = report_of(candidate(replies=(failed, *others)))
    assert "smoke-requests" in errors(report)
    assert "HTTP 500" in check_of(report, "smoke-requests").message


def test_a_failed_smoke_run_is_refused_with_its_checks_unless_they_are_waived() -> None:
    report = report_of(candidate(replies=replies(SALAD_ANSWERS)))
    with pytest.raises(RejectedError, match="lost 10 of 10 known answers") as caught:
        refuse_failed(report)
    assert caught.value.reason is ReasonCode.SMOKE_FAILED
    assert set(caught.value.checks) == KNOWN_CHECKS
    with pytest.raises(RejectedError):
        refuse_failed(report, waived=frozenset({"smoke-known-answers"}))
    refuse_failed(report, waived=frozenset(KNOWN_CHECKS))


def test_lost_answers_come_first_side_by_side() -> None:
    wrong = GOOD_ANSWERS | {"gold": "Silver."}
    report = report_of(candidate(replies=replies(wrong)))
    first = report.answers[0]
    assert (first.ask, first.candidate, first.lost) == ("gold", "Silver.", True)
    assert first.baseline == " It is Au."
    assert len(report.answers) == 3 * len(SET.asks)


def test_probe_and_report_survive_the_disk(tmp_path: Path) -> None:
    probe = candidate()
    save(probe, tmp_path / "probe.json")
    assert load(Probe, tmp_path / "probe.json") == probe
    report = report_of(candidate(readings=readings(rounded)[:1]))
    save(report, tmp_path / "smoke.json")
    assert load(SmokeReport, tmp_path / "smoke.json") == report
    assert json.loads((tmp_path / "smoke.json").read_text())["checks"]
