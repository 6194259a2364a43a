"""The checks of given texts: are they read at all, and as the baseline reads them?"""

import math
from collections.abc import Callable, Sequence

from harness.artifacts import KLD_CHECK, Measure, Probe
from harness.smoke import limits
from harness.smoke.finding import SmokeFinding, found, measured, not_run
from harness.smoke.limits import Limit
from harness.smoke.readings import (
    Differences,
    Estimate,
    ReadingPair,
    differ,
    is_complete,
    mean_over_passages,
    mean_over_tokens,
    pair_readings,
    unread_by,
)

TOKENIZER = "smoke-tokenizer"
READ = "smoke-log-probabilities"
NLL, WORST, TOP_1, KLD = "smoke-nll", "smoke-nll-passage", "smoke-top-1", KLD_CHECK
_NUMBERS = (NLL, WORST, TOP_1, KLD)


def check_readings(baseline: Probe, candidate: Probe) -> list[SmokeFinding]:
    """Compare what both arms make of the passages."""
    pairs = pair_readings(baseline, candidate)
    why = unread_by(baseline) or (
        None if pairs else "no log probabilities of the passages were given"
    )
    if why is not None:
        return [not_run(name, why) for name in (TOKENIZER, READ, *_NUMBERS)]
    retold = [p.baseline.passage for p in pairs if p.baseline.tokens != p.candidate.tokens]
    unread = [p.baseline.passage for p in pairs if not is_complete(p.candidate)]
    findings = [
        found(
            TOKENIZER,
            f"{len(retold)} of {len(pairs)} passages become other tokens than the baseline's",
            faulty=retold,
        ),
        found(READ, _unread(pairs, unread), faulty=unread),
    ]
    same = [p for p in pairs if p.baseline.passage not in {*retold, *unread}]
    differences = [differ(pair) for pair in same]
    if not any(one.top for one in differences):
        why = "no passage was read by both arms alike"
        return [*findings, *(not_run(name, why) for name in _NUMBERS)]
    return [*findings, *_compare(differences, same)]


def _unread(pairs: Sequence[ReadingPair], unread: Sequence[str]) -> str:
    error = next((p.candidate.error for p in pairs if p.candidate.error), None)
    why = f": {error}" if error else ", whose log probabilities are missing or not finite"
    return f"the candidate could not read {len(unread)} of {len(pairs)} passages" + (
        why if unread else ""
    )


def _compare(
    differences: Sequence[Differences], pairs: Sequence[ReadingPair]
) -> list[SmokeFinding]:
    nll = mean_over_passages([one.nll for one in differences])
    arms = [_mean_nll(pairs, lambda pair: pair.baseline.logprobs)]
    arms += [_mean_nll(pairs, lambda pair: pair.candidate.logprobs)]
    worst = max(differences, key=lambda one: mean_over_tokens(one.nll).low)
    of_worst = mean_over_tokens(worst.nll)
    top = mean_over_passages([one.top for one in differences])
    kld = mean_over_passages([one.kld for one in differences])
    return [
        _judged(NLL, "nats a token more than the baseline", nll, limits.NLL, arms=arms),
        _judged(
            WORST,
            f"nats a token more on the worst passage, {worst.passage},",
            of_worst,
            limits.NLL_PASSAGE,
        ),
        _judged(TOP_1, "of the baseline's sure tokens are not the likeliest", top, limits.TOP_1),
        _judged(KLD, "nats a token of divergence at least", kld, limits.KLD),
    ]


def _judged(
    name: str, what: str, value: Estimate, limit: Limit, *, arms: Sequence[float] = ()
) -> SmokeFinding:
    message = f"{value.mean:.4f} +- {value.stderr:.4f} {what} (limit {limit.value:g})"
    measure = Measure(
        name=name,
        baseline=arms[0] if arms else None,
        candidate=arms[1] if arms else None,
        difference=value.mean,
        stderr=value.stderr if math.isfinite(value.stderr) else None,
        limit=limit.value,
    )
    return measured(name, message, measure, faulty=() if value.low > limit.value else None)


def _mean_nll(
    pairs: Sequence[ReadingPair], logprobs: Callable[[ReadingPair], Sequence[float | None]]
) -> float:
    values = [-value for pair in pairs for value in logprobs(pair) if value is not None]
    return sum(values) / len(values)
