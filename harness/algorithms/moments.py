"""What inputs are like, as far as it decides which error of a weight matters.

An error D [O, I] of a weight changes the output of its layer, in the mean over inputs x [I], by
the trace of D M D^T, where M is the mean of x x^T: the input's second moments.

Shapes: E weights of one shape, I input features, B blocks of 16 input features, k features of one.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from harness.formats.nvfp4 import BLOCK

_FLOOR = 1e-6
"""Of the mean energy of an input feature: what one counts at least that was zero in all texts."""


class SecondMoments(NamedTuple):
    """Sums over tokens of x x^T, of each weight's input."""

    sums: Tensor
    """[E, I, I], or [E, B, k, k] of each block alone; float32."""
    tokens_E: Tensor
    """Tokens that were summed up; an expert may have none."""
    cross: Tensor | None = None
    """[E, I, I], sums of y x^T, where y is what the unquantized model has for the same token; None
    where that is x itself."""

    @classmethod
    def of_noise(cls, number: int, width: int, *, whole: bool, device: str) -> "SecondMoments":
        """Return those of inputs no two features of which go together."""
        shape = (width, width) if whole else (width // BLOCK, BLOCK, BLOCK)
        # While another thread builds a model, torch's default type is the model's.
        sums = (torch.eye(shape[-1], dtype=torch.float32, device=device) * width).expand(
            number, *shape
        )
        return cls(sums, torch.full((number,), width, device=device))

    def blocks(self) -> Tensor:
        """Return the means [E, B, k, k] of each block of 16.

        A block has 16 directions; of fewer tokens than that some are not seen at all. So features
        count for themselves beside, 16 tokens' worth: much where an expert got few tokens, next to
        nothing where it got thousands. One without any has the unit matrix: plain squared error.
        """
        whole = self.sums.dim() == 3  # noqa: PLR2004  # E, I, I
        sums = _diagonal_blocks(self.sums) if whole else self.sums
        tokens_E = self._tokens()
        return _firm(sums, tokens_E, share=BLOCK / tokens_E[:, None, None])

    def whole(self, *, damping: float | Tensor) -> Tensor:
        """Return the means [E, I, I], with `damping` times each feature's own energy added.

        A weight with I features has I directions: what few tokens leave open is damped by I / n.

        Args:
            damping: of all features, or of each [E, I].
        """
        tokens_E = self._tokens()
        open_E1 = self.sums.shape[-1] / tokens_E[:, None]
        return _firm(self.sums, tokens_E, share=damping + open_E1)

    def part(self, weights: slice | list[int] | Tensor) -> "SecondMoments":
        """Return those of some of the weights."""
        cross = None if self.cross is None else self.cross[weights]
        return SecondMoments(self.sums[weights], self.tokens_E[weights], cross)

    def _tokens(self) -> Tensor:
        """Return the tokens [E], one at least: float32, whatever torch's default type is."""
        return self.tokens_E.to(self.sums.dtype).clamp(min=1)


def _diagonal_blocks(sums_EII: Tensor) -> Tensor:
    number, width, _ = sums_EII.shape
    shape = (number, width // BLOCK, BLOCK, width // BLOCK, BLOCK)
    return sums_EII.reshape(shape).diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)


def _firm(sums: Tensor, tokens_E: Tensor, *, share: Tensor) -> Tensor:
    """Return means with `share` times each feature's own energy added."""
    per_E = (-1, *[1] * (sums.dim() - 1))
    means = sums / tokens_E.reshape(per_E)
    energy = means.diagonal(dim1=-2, dim2=-1)
    floor = _FLOOR * energy.flatten(1).mean(1).reshape(per_E[:-1])
    diagonal = torch.diag_embed(energy * share + floor)
    is_seen = (energy.flatten(1).amax(1) > 0).reshape(per_E)
    unit = torch.eye(sums.shape[-1], dtype=sums.dtype, device=sums.device)
    return torch.where(is_seen, means + diagonal, unit)
