"""The checks of answers: were all given, and are they right where the baseline's are?"""

from harness.artifacts import Measure, Mode, Probe, SmokeSet
from harness.smoke import limits
from harness.smoke.answers import Known, inconsistent, known_answers, replies_of
from harness.smoke.finding import SmokeFinding, found, measured, not_run
from harness.smoke.limits import Limit

REQUESTS = "smoke-requests"
KNOWN, SAMPLED = "smoke-known-answers", "smoke-known-answers-sampled"
BATCHING = "smoke-batching"


def check_answers(prompts: SmokeSet, baseline: Probe, candidate: Probe) -> list[SmokeFinding]:
    """Compare what both arms answer."""
    greedy = [known_answers(prompts, baseline, candidate, m) for m in (Mode.GREEDY, Mode.BATCHED)]
    worst = max(greedy, key=lambda known: len(known.lost))
    sampled = known_answers(prompts, baseline, candidate, Mode.SAMPLED)
    return [
        _requests(baseline, candidate),
        _known(KNOWN, worst, limits.LOST),
        _known(SAMPLED, sampled, limits.LOST_SAMPLED),
        _batching(prompts, baseline, candidate),
    ]


def _requests(baseline: Probe, candidate: Probe) -> SmokeFinding:
    """Ask whether every prompt that the baseline answered was answered."""
    failed = []
    for mode in Mode:
        ours, theirs = replies_of(baseline, mode), replies_of(candidate, mode)
        failed += [r for name, r in theirs.items() if r.error and not ours[name].error]
    why = f", the first: {failed[0].error}" if failed else ""
    message = f"{len(failed)} of {len(candidate.replies)} of the candidate's answers failed{why}"
    return found(REQUESTS, message, faulty=[f"{r.ask} ({r.mode})" for r in failed])


def _known(name: str, known: Known, limit: Limit) -> SmokeFinding:
    if known.baseline < limits.LEAST_KNOWN * known.asked or not known.baseline:
        why = f"the baseline answers {known.baseline} of {known.asked} questions"
        return not_run(name, f"{why}, too few to tell")
    lost = len(known.lost) / known.baseline
    message = (
        f"the candidate lost {len(known.lost)} of {known.baseline} known answers ({known.mode}), "
        f"and knows {known.won} more (limit {limit.value:.0%} lost)"
    )
    measure = Measure(
        name=name,
        baseline=known.baseline / known.asked,
        candidate=(known.baseline - len(known.lost) + known.won) / known.asked,
        difference=lost,
        stderr=None,
        limit=limit.value,
    )
    is_beyond = len(known.lost) > max(1, limit.value * known.baseline)
    return measured(name, message, measure, faulty=known.lost if is_beyond else None)


def _batching(prompts: SmokeSet, baseline: Probe, candidate: Probe) -> SmokeFinding:
    """Ask whether answers change when others are asked at the same time."""
    asked = sum(bool(ask.expect) for ask in prompts.asks)
    if not asked:
        return not_run(BATCHING, "the set has no question with a known answer")
    ours, theirs = inconsistent(prompts, baseline), inconsistent(prompts, candidate)
    difference = (len(theirs) - len(ours)) / asked
    limit = limits.BATCHING.value
    message = (
        f"{len(theirs)} of {asked} known answers are right only alone or only among others, "
        f"{len(ours)} of the baseline's (limit {limit:.0%} more)"
    )
    measure = Measure(
        name=BATCHING,
        baseline=len(ours) / asked,
        candidate=len(theirs) / asked,
        difference=difference,
        stderr=None,
        limit=limit,
    )
    is_beyond = len(theirs) - len(ours) > max(1, limit * asked)
    return measured(BATCHING, message, measure, faulty=theirs if is_beyond else None)
