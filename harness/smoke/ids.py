"""The ids of the smoke run's checks."""

from harness.smoke.checks_answers import BATCHING, KNOWN, SAMPLED
from harness.smoke.checks_readings import KLD, NLL, TOKENIZER, TOP_1, WORST
from harness.smoke.checks_surface import NAMES

CHECK_IDS = frozenset({TOKENIZER, NLL, WORST, TOP_1, KLD, KNOWN, SAMPLED, BATCHING, *NAMES})
"""All but those that say that something was not asked or not answered: a missing result is no
finding that somebody could answer for."""
