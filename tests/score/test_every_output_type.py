"""Tasks of each of lm-eval's output types: our scores are those of lm-eval's own evaluate."""

from collections.abc import Callable, Mapping
from math import exp, log
from pathlib import Path
from typing import Any

import pytest
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM

from harness.artifacts import Sample, Scale, Scorecard, Suite, TaskSpec, read_samples
from harness.score import check_suite, score
from harness.score.prepare import prepare
from harness.score.reference_lm import ReferenceLM
from harness.score.sources import Catalog
from tests.score.conftest import ALPHABET_TEXTS, write_task

Make = Callable[..., Any]
SUCCESSORS: Mapping[str, str] = {"a": "b", "b": "c", "c": " ", " ": "a", "k": "k", "?": "<|end|>"}
PIECE = 30
"""Tokens of a text that fit, where 32 are allowed."""

READ = """output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
"""
LAST_WORD = """output_type: loglikelihood
doc_to_text: "{{text}}"
doc_to_target: "{{last}}"
"""
CHOICES = """output_type: multiple_choice
doc_to_text: "{{text}}"
doc_to_target: gold
doc_to_choice: "{{choices}}"
target_delimiter: ""
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
  - {metric: acc_bytes, aggregation: mean, higher_is_better: true}
  - {metric: acc_mutual_info, aggregation: mean, higher_is_better: true}
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
  - {metric: brier_score, aggregation: brier_score, higher_is_better: false}
"""
ANSWERS = """output_type: generate_until
doc_to_text: "{{text}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], do_sample: false, max_gen_toks: 6}
process_results: !function scoring.overlap
metric_list:
  - {metric: f1, aggregation: mean, higher_is_better: true}
  - {metric: misses, aggregation: mean, higher_is_better: false}
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""
SCORING = """def overlap(doc, results):
    said, right = set(results[0]), set(doc["answer"])
    both = len(said & right)
    return {
        "f1": 2 * both / max(len(said) + len(right), 1),
        "misses": len(right - said),
        "exact_match": float(results[0] == doc["answer"]),
    }
"""


@pytest.fixture
def folder(tasks: Path) -> Path:
    texts: list[dict[str, object]] = [{"text": text} for text in ALPHABET_TEXTS]
    write_task(tasks, "read", texts, READ)
    pairs = [("abc ", "abc"), ("ab", "c a"), ("kk", "kkk"), ("x", "yz"), ("", "abc abc")]
    last: list[dict[str, object]] = [{"text": text, "last": word} for text, word in pairs]
    write_task(tasks, "last", last, LAST_WORD)
    chosen: list[dict[str, object]] = [
        {"text": "xa", "choices": ["b", "cc", "d"], "gold": 0},
        {"text": "a", "choices": ["cc", "bc", "kkkk"], "gold": 0},
        {"text": "k", "choices": ["kkkkkk", "k", "b"], "gold": 1},
        {"text": "ab", "choices": ["ä", "c", "cz ab"], "gold": 2},
    ]
    write_task(tasks, "choose", chosen, CHOICES)
    answers: list[dict[str, object]] = [
        {"text": "a", "answer": "bc abc"},
        {"text": "k", "answer": "kk"},
        {"text": "b", "answer": "xyz"},
    ]
    (tasks / "scoring.py").write_text(SCORING)
    write_task(tasks, "answer", answers, ANSWERS)
    return tasks


@pytest.fixture
def perplexity(spec: Make) -> Make:
    def make(task: str, metric: str, items: int, **changes: object) -> TaskSpec:
        form = {"margin": None, "relative_margin": 0.01, "spread": 0.1} | changes
        made: TaskSpec = spec(f"{task}({metric})", task=task, metric=metric, items=items, **form)
        return made

    return make


@pytest.fixture
def every(spec: Make, suite: Make, perplexity: Make, folder: Path) -> Suite:
    """Each metric of each task, named as a suite that lists a task twice names them."""
    del folder
    ranges = {"brier_score": (2.0, 0.0), "misses": (10.0, 0.0), "f1": (0.0, 1.0)}

    def valued(task: str, metric: str, items: int) -> TaskSpec:
        more = {"value_range": ranges.get(metric), "spread": 0.5}
        made: TaskSpec = spec(f"{task}({metric})", task=task, metric=metric, items=items, **more)
        return made

    read = ("word_perplexity", "byte_perplexity", "bits_per_byte")
    chosen = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match", "brier_score")
    made: Suite = suite(
        *(perplexity("read", metric, len(ALPHABET_TEXTS)) for metric in read),
        valued("last", "acc", 5),
        perplexity("last", "perplexity", 5),
        *(valued("choose", metric, 4) for metric in chosen),
        *(valued("answer", metric, 3) for metric in ("f1", "misses", "exact_match")),
    )
    return made


@pytest.fixture
def scored(served: Make, every: Suite, tmp_path: Path) -> Scorecard:
    check_suite(every)
    return score(served(SUCCESSORS), every, arm="candidate", into=tmp_path / "out")


@pytest.fixture
def theirs(served: Make, every: Suite, scored: Scorecard) -> Mapping[str, Mapping[str, float]]:
    """What lm-eval's evaluate says of the same model, by task and metric."""
    del scored
    model = served(SUCCESSORS)
    lm: Any = HFLM(
        pretrained=model.model,
        tokenizer=model.tokenizer,
        max_length=PIECE,
        batch_size=every.batch_size,
    )
    specs = {spec.asked: spec for spec in every.tasks}
    found: dict[str, Mapping[str, float]] = {}
    for name, one in specs.items():
        asked: Any = prepare(Catalog(), every, one, ReferenceLM(model, every))
        found[name] = evaluate(lm, {"tasks": asked}, bootstrap_iters=0)["results"][name]
    return found


def test_every_score_is_lm_evals_own(
    scored: Scorecard, theirs: Mapping[str, Mapping[str, float]], every: Suite
) -> None:
    for spec, one in zip(every.tasks, scored.tasks, strict=True):
        worst, best = spec.value_range or (0.0, 1.0)
        ours = one.value if one.scale is not Scale.SHARE else worst + (best - worst) * one.value
        assert ours == pytest.approx(theirs[spec.asked][f"{spec.metric},none"], rel=1e-6), spec.name


def test_each_score_has_its_unit(scored: Scorecard) -> None:
    scales = {one.metric: one.scale for one in scored.tasks}
    assert scales["word_perplexity"] == scales["perplexity"] == Scale.PERPLEXITY
    assert scales["bits_per_byte"] == Scale.BITS
    assert scales["acc"] == scales["brier_score"] == Scale.SHARE


def test_a_document_has_its_log_likelihood_and_its_weight(
    scored: Scorecard, tmp_path: Path
) -> None:
    by_name = {one.task: one for one in scored.tasks}

    def read(name: str) -> tuple[Sample, ...]:
        return read_samples(tmp_path / "out" / by_name[name].samples)

    words, bits = read("read(word_perplexity)"), read("read(bits_per_byte)")
    assert [s.weight for s in words][:2] == [3.0, 1.0]
    assert [s.weight for s in bits][:2] == [11.0, 200.0]
    assert [s.value for s in words] == [s.value for s in bits]
    total = sum(s.value for s in bits) / sum(s.weight or 0 for s in bits)
    assert by_name["read(bits_per_byte)"].value == pytest.approx(-total / log(2))
    targets = read("last(perplexity)")
    assert {s.weight for s in targets} == {1.0}
    mean = sum(s.value for s in targets) / len(targets)
    assert by_name["last(perplexity)"].value == pytest.approx(exp(-mean))
    assert targets[0].answer.startswith("the likeliest, log-likelihood -")


def noting(real: Make, asked: list[str]) -> Callable[..., object]:
    def note(lm: ReferenceLM, requests: list[Any], **given: object) -> object:
        asked.append(requests[0].task_name)
        return real(lm, requests, **given)

    return note


def test_a_task_is_asked_once_for_all_its_metrics(
    served: Make, every: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    for kind in ("loglikelihood", "loglikelihood_rolling", "generate_until"):
        monkeypatch.setattr(ReferenceLM, kind, noting(getattr(ReferenceLM, kind), asked))
    score(served(SUCCESSORS), every, arm="candidate", into=tmp_path / "once")
    assert asked == ["read", "last", "choose", "answer"]


def test_a_mutual_information_chooses_among_the_options_alone(
    scored: Scorecard, tmp_path: Path
) -> None:
    by_name = {one.task: one for one in scored.tasks}
    samples = read_samples(tmp_path / "out" / by_name["choose(acc)"].samples)
    assert [s.answer for s in samples] == ["b", "bc", "k", "c"]


def test_a_text_that_cannot_be_read_is_unknown_and_not_unlikely(
    served: Make, perplexity: Make, suite: Make, folder: Path, tmp_path: Path
) -> None:
    del folder
    asked = suite(perplexity("read", "word_perplexity", len(ALPHABET_TEXTS)))
    broken = served(SUCCESSORS, broken="k")
    task = score(broken, asked, arm="candidate", into=tmp_path / "broken").tasks[0]
    samples = read_samples(tmp_path / "broken" / task.samples)
    assert [s.finish for s in samples].count("error") == task.num_errors == 2
    assert samples[1].weight == 1.0


def test_no_score_is_made_of_what_nobody_reads(
    served: Make, perplexity: Make, suite: Make, folder: Path, tmp_path: Path
) -> None:
    """One word of 2,000 letters, none of them expected: lm-eval's own perplexity overflows."""
    write_task(folder, "read", [{"text": "z" * 2000}], READ)
    asked = suite(perplexity("read", "word_perplexity", 1))
    task = score(served(SUCCESSORS), asked, arm="candidate", into=tmp_path / "long").tasks[0]
    assert task.value > 1e300
