"""The verdict as an in-toto statement about each file of the checkpoint.

Statement v1 with the test-result predicate v0.1, plain JSON. Sources:
https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md and
https://github.com/in-toto/attestation/blob/main/spec/predicates/test-result.md.
"""

from collections.abc import Mapping
from typing import Any

from harness.artifacts import Decision, SignOff, Tier, Verdict

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://in-toto.io/attestation/test-result/v0.1"


def statement_of(verdict: Verdict, signoff: SignOff, verdict_sha256: str) -> dict[str, Any]:
    """Return the statement that every file of the checkpoint has passed.

    The same verdict of the same files gives the same statement.

    Args:
        verdict: a GO.
        signoff: with the digests.
        verdict_sha256: of the verdict's file.
    """
    waived = [f"check:{one.check}" for one in verdict.waived]
    within: list[str] = []
    warned = list(waived)
    for task in verdict.tasks:
        is_proven = task.tier is Tier.CRITICAL or task.decision is Decision.GO
        (within if is_proven else warned).append(f"task:{task.task}")
    configuration = {
        "baseline": signoff.baseline_digest,
        "suite": signoff.suite_digest,
        "verdict": verdict_sha256,
    }
    return {
        "_type": STATEMENT_TYPE,
        "subject": _digests(signoff.checkpoint),
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "result": "WARNED" if waived else "PASSED",
            "configuration": _digests(configuration),
            "passedTests": within,
            "warnedTests": warned,
            "failedTests": [],
        },
    }


def _digests(named: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"name": name, "digest": {"sha256": named[name]}} for name in sorted(named)]
