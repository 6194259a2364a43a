"""Ask a served model the smoke set: what it makes of given texts, and what it answers.

Both arms are asked the same tokens with the same limits, whatever engine answers: greedily one by
one, greedily all at once, and drawn at temperature 1 with the set's seed. A passage is read for the
log probability of each of its tokens and of the likeliest ones there. What cannot be had is said
so in the answer, never made up: NaN and infinity are None, and a server that has only chats gives
no readings at all.

Left out: images. The language part of a multimodal model is what was quantized.
"""

import logging
from collections.abc import Iterator
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

    def read(self) -> tuple[Reading, ...]:
        """Return the log probabilities of the set's passages."""

    def answer(self, asks: tuple[Ask, ...], *, seed: int | None) -> list[Answer]:
        """Answer the prompts, all of them asked at once; drawn where there is a seed."""


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
    _log.info("smoke: %s reads %d passages", arm, len(prompts.passages))
    with scoring("smoke"), _opened(served, prompts) as probed:
        readings = probed.read()
        _log.info("smoke: %s answers %d prompts in three ways", arm, len(prompts.asks))
        one_by_one = [probed.answer((ask,), seed=None)[0] for ask in prompts.asks]
        answers = {
            Mode.GREEDY: one_by_one,
            Mode.BATCHED: probed.answer(prompts.asks, seed=None),
            Mode.SAMPLED: probed.answer(prompts.asks, seed=prompts.seed),
        }
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
