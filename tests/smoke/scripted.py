"""Probes as two arms might have given them: texts, and log probabilities made of a table."""
# ruff: noqa: S311 -- seeded pseudo-random numbers are the purpose.

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from harness.artifacts import (
    Ask,
    Check,
    Mode,
    Passage,
    Probe,
    Reading,
    Reply,
    SmokeReport,
    SmokeSet,
)
from harness.smoke import compare
from tests.nouns import deployment

VOCABULARY = 40
NUM_PASSAGES = 12
NUM_TOKENS = 30
KNOWN = {
    "france": "Paris",
    "product": "391",
    "play": "Shakespeare",
    "gold": "Au",
    "planet": "Jupiter",
    "leap": "366",
    "root": "12",
    "gas": "carbon dioxide",
    "zh": "北京",
    "spanish": "gracias",
}
PROSE = (
    "The ferry left the harbor a little before six, when the fog was still lying on the water. "
    "Nobody on deck spoke, and a man in a yellow coat was feeding bread to the gulls. By the time "
    "the sun came through, the island had already begun to take shape on the other side."
)
TALE = (
    "On the first day of spring the keeper of the lighthouse found a letter under his door. It "
    "was written in a hand that he did not know, and it asked him to leave the lamp dark for one "
    "night. He read it twice, put it in his pocket, and went up the stairs as he did every evening."
)
OPEN = {"open-1": PROSE, "open-2": TALE}
SET = SmokeSet(
    name="scripted",
    apply_chat_template=False,
    max_model_len=512,
    seed=1,
    top_k=8,
    passages=tuple(Passage(id=f"p{i}", text="...") for i in range(NUM_PASSAGES)),
    asks=(
        *(Ask(id=n, prompt=f"{n}?", expect=(a,), max_tokens=16) for n, a in KNOWN.items()),
        *(Ask(id=name, prompt="Tell me more.", max_tokens=80) for name in OPEN),
    ),
    digest="5" * 64,
)
COMPUTED = ("weights:nvfp4", "inputs:nvfp4")
DEPLOYMENT = deployment(version="1", model="m", exercised=COMPUTED, declared=COMPUTED)
Answers = dict[str, str]
Logits = Callable[[str, int], Sequence[float]]
"""The logits of a passage's place."""


def sure(passage: str, place: int) -> list[float]:
    """Return logits of a model that expects the right token (place modulo vocabulary) clearly."""
    generator = random.Random(f"{passage} {place}")
    logits = [generator.gauss(0, 1) for _ in range(VOCABULARY)]
    logits[place % VOCABULARY] += 6
    return logits


def salad(passage: str, place: int) -> list[float]:
    """Return logits of a model that expects one token as well as another."""
    generator = random.Random(f"salad {passage} {place}")
    return [generator.gauss(0, 1) for _ in range(VOCABULARY)]


def rounded(passage: str, place: int) -> list[float]:
    """Return what a good quantized model makes of it: a little noise."""
    generator = random.Random(f"noise {passage} {place}")
    return [value + generator.gauss(0, 0.1) for value in sure(passage, place)]


def log_softmax(logits: Sequence[float]) -> list[float]:
    top = max(logits)
    total = top + math.log(sum(math.exp(v - top) for v in logits))
    return [value - total for value in logits]


def reading(name: str, logits: Logits = sure, **changes: object) -> Reading:
    tokens = tuple(place % VOCABULARY for place in range(NUM_TOKENS))
    values, tops = [], []
    for place in range(1, NUM_TOKENS):
        logprobs = log_softmax(logits(name, place))
        ranked = sorted(range(VOCABULARY), key=lambda t: -logprobs[t])[: SET.top_k]
        values.append(logprobs[tokens[place]])
        tops.append({t: logprobs[t] for t in {*ranked, tokens[place]}})
    made = Reading(passage=name, tokens=tokens, logprobs=tuple(values), top=tuple(tops))
    return replace(made, **changes)  # type: ignore[arg-type]  # the fields vary by test


def readings(logits: Logits = sure) -> tuple[Reading, ...]:
    return tuple(reading(passage.id, logits) for passage in SET.passages)


def replies(answers: Answers, modes: Sequence[Mode] = tuple(Mode)) -> tuple[Reply, ...]:
    return tuple(
        Reply(ask=name, mode=mode, text=text, finish="stop")
        for mode in modes
        for name, text in answers.items()
    )


GOOD_ANSWERS: Answers = {name: f" It is {answer}." for name, answer in KNOWN.items()} | OPEN
BASELINE = Probe(
    arm="baseline",
    set_digest=SET.digest,
    deployment=DEPLOYMENT,
    readings=readings(),
    replies=replies(GOOD_ANSWERS),
)


def candidate(**changes: object) -> Probe:
    made = replace(BASELINE, arm="candidate", readings=readings(rounded))
    return replace(made, **changes)  # type: ignore[arg-type]  # the fields vary by test


def report_of(probe: Probe, baseline: Probe = BASELINE) -> SmokeReport:
    return compare(SET, baseline, probe, numerics="declared")


def errors(report: SmokeReport) -> set[str]:
    return {check.id for check in report.errors}


def check_of(report: SmokeReport, name: str) -> Check:
    (found,) = [check for check in report.checks if check.id == name]
    return found


def english_salad(like: str, seed: int) -> str:
    """Return as many English words as `like` has, in no order and without a sense."""
    words = (PROSE + " " + TALE).replace(".", "").replace(",", "").split()
    generator = random.Random(seed)
    return " ".join(generator.choice(words) for _ in like.split())
