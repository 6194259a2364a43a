"""The ids of everything a deployment can be found to show."""

from harness.serve.sglang.words import DAMAGE
from harness.serve.vllm.log_patterns import PATTERNS
from harness.serve.vllm.observe import DEFAULT_KV_SCALE, NOT_FILLED, NOT_TAKEN

FINDING_IDS = frozenset(
    {NOT_FILLED, NOT_TAKEN, DEFAULT_KV_SCALE, *(p.id for p in (*PATTERNS, *DAMAGE))}
)
"""All but that nothing is known of a load (`load-report-missing`): a missing result is no finding
that somebody could answer for."""
