"""How near quantized files stay to the unquantized model, on texts that calibrated nothing.

What is measured are the files on the reference engine, which rounds weights and inputs as vLLM's
emulation does; the unquantized model runs in the same arithmetic.

Shapes: B texts of a batch, T tokens of a text.
"""

import json
import random
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from harness import shipped
from harness.artifacts import EngineSpec
from harness.serve.reference import serve_reference

_BATCH = 4


class Score(NamedTuple):
    """Of one text, in the mean over its tokens."""

    nll: float
    """Nats a token more than the unquantized model's."""
    kld: float
    top_1: float


class Texts(NamedTuple):
    """What a model is measured with, and what may calibrate it."""

    held_out: Sequence[str]
    calibrating: Sequence[str]


def texts_of(model: str) -> Texts:
    """Return the canary's own texts for the canary; else a third of the default ones, and the rest.

    Args:
        model: what `--model` takes.
    """
    if model == shipped.CANARY:
        folder = shipped.canary()
        return Texts(_read(folder / "heldout.jsonl"), _read(folder / "calibration.jsonl"))
    texts = _read(shipped.calibration() / "default.jsonl")
    random.Random(0).shuffle(texts)  # noqa: S311 -- no secret
    third = len(texts) // 3
    return Texts(texts[:third], texts[third:])


def _read(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


class Source:
    """The unquantized model, which answers when it is first compared with."""

    def __init__(
        self, model: Path, texts: Sequence[str], *, number: int, length: int, device: str
    ) -> None:
        """Take as many texts as there are, `number` at most, and of each `length` tokens.

        Where fewer are that long, all are joined and cut.
        """
        self._model, self._texts, self._device = model, texts, device
        self._number, self._length = number, length
        self._engine = EngineSpec(
            name="reference", numerics="declared", device=device, dtype="float32"
        )

    def compared(self, checkpoint: Path) -> Iterator[Score]:
        """Yield each text's score of a checkpoint."""
        answers = self._answers
        with serve_reference(self._engine, checkpoint) as served, torch.inference_mode():
            for ids_BT, expected in answers:
                found = _log_probabilities(served.model, ids_BT)
                wanted = expected.to(found.device)
                kld_BT = (wanted.exp() * (wanted - found)).sum(-1)
                same_BT = (wanted.argmax(-1) == found.argmax(-1)).float()
                nll_BT = (wanted - found).gather(-1, ids_BT[:, 1:, None]).squeeze(-1)
                for nll, kld, same in zip(nll_BT, kld_BT, same_BT, strict=True):
                    yield Score(float(nll.mean()), float(kld.mean()), float(same.mean()))

    @cached_property
    def _answers(self) -> list[tuple[Tensor, Tensor]]:
        """The ids of each batch, with the log probabilities of what comes next."""
        with serve_reference(self._engine, self._model) as served, torch.inference_mode():
            ids = [served.tokenizer(text)["input_ids"] for text in self._texts]
            batches = torch.split(self._cut(ids).to(self._device), _BATCH)
            return [(ids_BT, _log_probabilities(served.model, ids_BT).cpu()) for ids_BT in batches]

    def _cut(self, ids: Sequence[Sequence[int]]) -> Tensor:
        length = self._length
        whole = [list(one[:length]) for one in ids if len(one) >= length][: self._number]
        if len(whole) < self._number:
            joined = list(chain.from_iterable(ids))
            starts = range(0, len(joined) - length + 1, length)
            whole = [joined[start : start + length] for start in starts][: self._number]
        if len(whole) < 2:  # noqa: PLR2004  # an error bar needs two
            message = f"{len(whole)} held-out texts have {length} tokens: fewer --tokens"
            raise SystemExit(message)
        return torch.tensor(whole)


def _log_probabilities(model: Any, ids_BT: Tensor) -> Tensor:  # noqa: ANN401  # transformers
    logits: Tensor = model(input_ids=ids_BT, use_cache=False).logits
    return logits[:, :-1].float().log_softmax(-1)
