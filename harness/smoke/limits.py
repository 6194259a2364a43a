"""Every limit of the smoke comparison, in one place, with the reason of each.

A limit is for the difference between the arms; beyond it the run ends. Two things pull at it. It
must never fail a correct format, of any model, nor a baseline that is asked again: so it lies many
times above what those measure on the canary, and above what four-bit formats are known to cost
other models. And it must catch salad, which lies another tenfold above. What falls between is for
the suite to judge: scores are finer, and slower.

`python -m scripts.smoke_table` measures all of it on the canary: correct NVFP4, NVFP4 of experts
alone, W4A16, FP8 and FP8 keys and values, the baseline again, and faults.
"""

from typing import NamedTuple


class Limit(NamedTuple):
    """How large a difference may be."""

    value: float
    reason: str


NLL = Limit(
    0.15,
    "nats a token: a perplexity 16 % higher. Correct formats of the canary: at most 0.002; "
    "four-bit formats of other models 0.01 to 0.1. Faults: 0.09 (down by 2) to 8.7.",
)
NLL_PASSAGE = Limit(
    0.5,
    "nats a token on the worst passage, where one kind of text meets a broken expert. Correct "
    "formats: 0.011. Faults: 0.4 to 10.",
)
TOP_1 = Limit(
    0.15,
    "share of the tokens that the baseline is sure of. Correct formats: 0.03. Faults: 0.04 to 1.",
)
KLD = Limit(
    0.2,
    "nats a token at least. Correct formats of the canary: 0.002; good four-bit formats of other "
    "models 0.01 to 0.05. Faults: 0.09 to 7.",
)
LOST = Limit(
    0.1,
    "share of the baseline's known answers; one may be lost always. Correct formats: none of 25. "
    "Faults: 0.16 to 1.",
)
LOST_SAMPLED = Limit(
    0.25,
    "the same drawn at temperature 1, where a draw near a boundary may fall either way. Correct "
    "formats: none of 24. Faults: 0.17 to 1.",
)
BATCHING = Limit(
    0.1,
    "share of known answers that change when others are asked too; one may always. Correct "
    "formats: none, for known answers are no near ties.",
)
REPETITION = Limit(
    0.4,
    "rep-4 above the baseline's. Loops reach 0.98, normal text 0.2; a list or a table may repeat.",
)
COMPRESSION = Limit(
    1.0,
    "log of the ratio, either way. Loops compress 8 to 30 times better than prose (2 to 3.4); "
    "correct formats of the canary differ by 0.2.",
)
SCRIPTS = Limit(
    1.0,
    "bits, either way. Salad of many scripts has 3, text of one script 0, Chinese with Latin 1.",
)
DOMINANCE = Limit(
    0.3,
    "share of the commonest word, above the baseline's. One word over and over has 1, prose 0.1.",
)
EMPTIES = Limit(0.2, "share of answers that say nothing, above the baseline's.")
LENGTH = Limit(
    1.1,
    "log of the ratio of mean lengths, either way: three times as long or as short. Where both end "
    "at the budget it is 0; answers that stop at once have 4.",
)
GARBAGE = Limit(
    0.05,
    "share of characters that no text has, above the baseline's. Bytes drawn at random have half.",
)
LEAST_KNOWN = 0.5
"""Share of the questions that the baseline must answer for the known answers to say anything."""
