"""What thin experts do to a verdict."""

from collections.abc import Callable
from typing import Any

from harness.artifacts import CoverageSpec, Decision, ThinExperts
from harness.errors import ReasonCode
from harness.gate import judge
from tests.gate.arms import arms_of
from tests.nouns import suite_of

Make = Callable[..., Any]


def _thin(num_thin: int, allowed: float) -> ThinExperts:
    return ThinExperts(
        wanted=CoverageSpec(min_tokens=8, max_thin=allowed),
        num_thin=num_thin,
        num_projections=100,
        fewest=0,
        examples=("layers.3.mlp.experts.17.down_proj",)[:num_thin],
    )


def test_more_thin_experts_than_allowed_are_never_go() -> None:
    baseline, candidate = arms_of(lost=0, won=0)
    thin = _thin(11, 0.1)
    verdict = judge(suite_of(), baseline, candidate, verified=True, coverage=thin)
    assert verdict.decision is Decision.INCONCLUSIVE
    assert verdict.reason_codes == (ReasonCode.LOW_COVERAGE,)
    assert "11 of 100 projections of experts saw fewer than 8 tokens" in verdict.summary
    assert "layers.3.mlp.experts.17.down_proj" in verdict.summary


def test_a_proven_loss_wins_over_thin_experts() -> None:
    baseline, candidate = arms_of(lost=200, won=0)
    verdict = judge(suite_of(), baseline, candidate, verified=True, coverage=_thin(100, 0.1))
    assert verdict.decision is Decision.NO_GO
    assert verdict.reason_codes == (ReasonCode.TASK_INFERIOR, ReasonCode.LOW_COVERAGE)


def test_thin_experts_within_the_allowance_are_named_in_the_scope() -> None:
    baseline, candidate = arms_of(lost=0, won=0)
    verdict = judge(suite_of(), baseline, candidate, verified=True, coverage=_thin(10, 0.1))
    assert verdict.decision is Decision.GO
    assert any(line.startswith("10 of 100 projections of experts") for line in verdict.scope)
    covered = judge(suite_of(), baseline, candidate, verified=True, coverage=_thin(0, 0.1))
    assert not any("projections of experts" in line for line in covered.scope)
