"""Ask a served model the smoke set: what it makes of given texts, and what it answers.

Both arms are asked the same tokens with the same limits, whatever engine answers: greedily by
itself, greedily among others, and drawn at temperature 1 with the set's seed. A passage is read for
the log probability of each of its tokens and of the likeliest ones there. What cannot be had is
said so in the answer, never made up: NaN and infinity are None, and a server that has only chats
gives no readings at all.

Only a prompt with a known answer is asked by itself, for only of those is it compared whether they
are right alone and among others (`smoke-batching`). A server gets these one after another, then all
the rest at once: it takes as long as the longest answer.

Left out: images. The language part of a multimodal model is what was quantized.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from harness.artifacts import Ask, Endpoint, Mode, Probe, Reading, Reply, SmokeSet
from harness.score.client import connect
from harness.score.prepare import scoring
from harness.score.probe_http import ChatProbed, ServerProbed
from harness.score.probe_local import LocalProbed
from harness.score.reference_lm import Answering
from harness.score.replies import Answer

_log = logging.getLogger("harness.score")


class _Probed(Protocol):
    """One engine, as far as a probe needs it."""

    def read(self) -> Callable[[], tuple[Reading, ...]]:
        """Ask for the log probabilities of the set's passages; return what waits for them."""

    def answer(self, asks: Sequence[Ask], *, seed: int | None) -> Callable[[], list[Answer]]:
        """Ask the prompts, all at once; return what waits for the answers.

        They are drawn where there is a seed.
        """


def probe(served: Answering | Endpoint, prompts: SmokeSet, *, arm: str) -> Probe:
    """Put `prompts` to a served model.

    Args:
        served: an engine's model in this process, or a server, ready to answer.
        prompts: what is asked.
        arm: `baseline` or `candidate`.

    Raises:
        EngineError: the model failed while answering, the server died, or its answers to known
            prompts do not prove that it can be scored.
        PrerequisiteError: the server's folder holds no tokenizer.
    """
    with scoring("smoke"), _opened(served, prompts) as probed:
        readings, answers = _ask(probed, prompts, arm)
    return Probe(
        arm=arm,
        set_digest=prompts.digest,
        deployment=served.deployment,
        readings=readings,
        replies=tuple(
            Reply(
                ask=ask.id,
                mode=mode,
                text=answer.text,
                finish=answer.finish.name.lower(),
                error=answer.error,
            )
            for mode, of_mode in answers.items()
            for ask, answer in zip(prompts.asks, of_mode, strict=True)
        ),
    )


def _ask(
    probed: _Probed, prompts: SmokeSet, arm: str
) -> tuple[tuple[Reading, ...], Mapping[Mode, Sequence[Answer]]]:
    """Return the readings, and the answers of each mode in the order of the prompts."""
    rest = [ask for ask in prompts.asks if ask not in prompts.alone]
    _log.info("smoke: %s answers %d prompts one by one", arm, len(prompts.alone))
    greedy = {ask.id: probed.answer([ask], seed=None)()[0] for ask in prompts.alone}
    at_once = len(prompts.passages) + len(rest) + 2 * len(prompts.asks)
    _log.info("smoke: %s reads passages and answers all prompts, %d at once", arm, at_once)
    read, among_others = probed.read(), probed.answer(rest, seed=None)
    batched = probed.answer(prompts.asks, seed=None)
    sampled = probed.answer(prompts.asks, seed=prompts.seed)
    readings = read()
    greedy |= {ask.id: answer for ask, answer in zip(rest, among_others(), strict=True)}
    return readings, {
        Mode.GREEDY: [greedy[ask.id] for ask in prompts.asks],
        Mode.BATCHED: batched(),
        Mode.SAMPLED: sampled(),
    }


@contextmanager
def _opened(served: Answering | Endpoint, prompts: SmokeSet) -> Iterator[_Probed]:
    if not isinstance(served, Endpoint):
        yield LocalProbed(served, prompts)
        return
    kind = ChatProbed if served.protocol == "chat" else ServerProbed
    with connect(served) as connection:
        probed = kind(served, connection, prompts)
        probed.prove()
        yield probed
