"""The texts of the passes: some for what each unit costs, others for whole recipes."""

from typing import NamedTuple

from torch import Tensor

from harness.artifacts import Recipe
from harness.calibrate.batches import CPU_TOKENS
from harness.calibrate.samples import Sample, make_batches, read_samples
from harness.errors import DataError
from harness.models import Source

_FEWEST, _WANTED = 2, 8
"""Texts of each pass: an error bar needs two, and says something with more."""


class Texts(NamedTuple):
    """Samples of the recipe's calibration set, in its order."""

    sensing: list[Sample]
    proving: list[Sample]
    """Others, for recipes as a whole."""
    batch_tokens: int

    def batches(self, samples: list[Sample]) -> list[Tensor]:
        """Return samples as token ids [B, T]."""
        return make_batches(samples, batch_tokens=self.batch_tokens)


def read_texts(recipe: Recipe, source: Source, tokens: int) -> Texts:
    """Take texts in turns until each pass has its tokens, at least eight texts, or the set ends.

    Raises:
        DataError: the set cannot be used with this model, or has fewer than four texts.
        ModelError: the model has no tokenizer.
    """
    spec = recipe.calibration
    longest = max(_FEWEST, tokens // _WANTED)
    parts: tuple[list[Sample], list[Sample]] = ([], [])
    left = [tokens, tokens]
    for index, sample in enumerate(read_samples(spec, source)):
        taken = sample[: min(longest, left[index % 2])]
        if len(taken) >= _FEWEST:
            parts[index % 2].append(taken)
            left[index % 2] -= len(taken)
        if max(left) < _FEWEST:
            break
    if any(len(part) < _FEWEST for part in parts):
        message = (
            f"the calibration data '{spec.data}' gives {len(parts[0])} and {len(parts[1])} texts, "
            "and tuning needs two to measure units on and two others for recipes. Give more "
            "texts, or raise --calib-size."
        )
        raise DataError(message)
    return Texts(*parts, spec.batch_tokens or CPU_TOKENS)
