"""Which tensors of the files fill a linear layer that an engine made of several."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

from torch import Tensor, nn

from .ledger import ParameterPart


def linear_parts(
    whole: ParameterPart, module: nn.Module, tensor: Tensor, names: Sequence[str]
) -> Iterator[ParameterPart]:
    """Cut along the outputs, where a linear layer holds more than one."""
    sizes: Sequence[int] = getattr(module, "output_partition_sizes", None) or ()
    length = tensor.shape[0] if tensor.ndim else 1
    if len(sizes) > 1 and length == len(sizes) and tensor.ndim == 1:
        sizes = [1] * length
    if len(sizes) <= 1 or length != sum(sizes):
        yield whole
        return
    owner, _, local = whole.name.rpartition(".")
    parent = owner.rpartition(".")[0]
    spelled = [f"{parent}.{n}.{local}" for n in names]
    if len(spelled) != len(sizes):
        spelled = [f"{whole.name}[{i}]" for i in range(len(sizes))]
    step = tensor.nbytes // length
    for name, (low, high) in zip(spelled, pairwise(accumulate(sizes, initial=0)), strict=True):
        yield ParameterPart(name, (whole.span[0] + low * step, whole.span[0] + high * step))
