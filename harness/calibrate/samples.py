"""Turn texts into batches of token ids.

A batch holds samples of one length, so nothing is ever padded. Rows of padding would reach every
linear layer like any other row (an attention mask does not keep them out) and widen the ranges
that are measured there; where there are none, none can be measured.

Shapes: B samples of a batch, T tokens of a sample.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from harness.artifacts import CalibrationSpec
from harness.calibrate.batches import CPU_TOKENS
from harness.calibrate.data import Text, data_digest, iter_texts
from harness.errors import DataError, HarnessError, ModelError
from harness.models import Source, load_tokenizer, vocabulary_size

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger("harness.calibrate")
_MIN_TOKENS = 2

Sample = tuple[int, ...]
_kept: dict[object, list[Sample]] = {}
"""What `measure_extent` read last, until it is used."""


class Extent(NamedTuple):
    """How much text calibrates a model."""

    num_samples: int
    num_tokens: int
    num_batches: int


def read_samples(
    spec: CalibrationSpec, source: Source, texts: Iterable[Text] | None = None
) -> list[Sample]:
    """Return samples of 2 to `spec.seq` tokens, in the set's seeded order.

    There are at most `spec.size`, or as many as the coverage may ask for, if that is more. What
    `measure_extent` has read is taken, once.

    Args:
        spec: of the set.
        source: whose tokenizer it is read with.
        texts: in the place of the set's own.

    Raises:
        DataError: the set cannot be read, or has no sample of two tokens, or ids beyond the
            model's vocabulary.
        ModelError: the model has no tokenizer, and the set has text.
    """
    kept = None if texts is not None else _kept.pop(_asked(spec, source), None)
    return kept or _read(spec, source, iter_texts(spec) if texts is None else texts)


def _read(spec: CalibrationSpec, source: Source, texts: Iterable[Text]) -> list[Sample]:
    vocabulary = vocabulary_size(source)
    encode = _encoder(source, spec.seq)
    most = max(spec.size, spec.coverage.max_size)
    samples: list[Sample] = []
    num_short = 0
    for text in texts:
        sample = _sample(text, encode, spec.seq)
        if sample and max(sample) >= vocabulary:
            message = (
                f"{text.place}: token id {max(sample)} is beyond the model's vocabulary of "
                f"{vocabulary}. Use ids of this model's tokenizer."
            )
            raise DataError(message)
        if len(sample) < _MIN_TOKENS:
            num_short += 1
            continue
        samples.append(sample)
        if len(samples) == most:
            break
    if not samples:
        message = (
            f"the calibration data '{spec.data}' has no text of {_MIN_TOKENS} tokens or more "
            f"within {spec.seq} tokens. Give longer texts."
        )
        raise DataError(message)
    if num_short:
        _log.info("calibrate: left out %d samples of fewer than 2 tokens", num_short)
    return samples


def measure_extent(spec: CalibrationSpec, source: Source) -> Extent:
    """Return how much will be run at first, having read and tokenized it all.

    Raises:
        DataError: the set cannot be used with this model.
        ModelError: the model has no tokenizer, and the set has text.
    """
    every = read_samples(spec, source)
    if source.digest:  # else two models would look alike
        _kept.clear()
        _kept[_asked(spec, source)] = every
    samples = every[: spec.size]
    return Extent(
        num_samples=len(samples),
        num_tokens=sum(len(sample) for sample in samples),
        num_batches=len(make_batches(samples, batch_tokens=spec.batch_tokens or CPU_TOKENS)),
    )


def _asked(spec: CalibrationSpec, source: Source) -> object:
    return spec, data_digest(spec), source.digest


def make_batches(samples: Sequence[Sample], *, batch_tokens: int) -> list[Tensor]:
    """Return the samples as int64 tensors [B, T] of at most `batch_tokens` tokens, longest first.

    A sample that is longer than that makes a batch of its own.
    """
    batches: list[Tensor] = []
    for length, group in groupby(sorted(samples, key=len, reverse=True), key=len):
        same = list(group)
        size = max(1, batch_tokens // length)
        batches.extend(torch.tensor(same[i : i + size]) for i in range(0, len(same), size))
    return batches


def _sample(text: Text, encode: Callable[[str], Sample], seq: int) -> Sample:
    return encode(text.content) if isinstance(text.content, str) else text.content[:seq]


def _encoder(source: Source, seq: int) -> Callable[[str], Sample]:
    """Return the model's tokenizer, loaded when the first text comes: ids do without."""

    @cache
    def tokenizer() -> "PreTrainedTokenizerBase":
        return load_tokenizer(source.path)

    def encode(text: str) -> Sample:
        try:
            return tuple(tokenizer()(text, truncation=True, max_length=seq)["input_ids"])
        except HarnessError:
            raise
        except Exception as error:  # the tokenizers library raises plain Exceptions
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            message = f"the tokenizer of '{source.name}' cannot read a text ({reason})."
            raise ModelError(message + " Copy the model's tokenizer files there again.") from error

    return encode
