"""Our tensors beside those of Model-Optimizer's export of the same model and the same samples.

Scales hold every range that was calibrated, so equal scales are equal ranges. NVFP4 codes must be
equal too; FP8 codes may be one step apart, for the peer rounds twice (harness/formats/README.md).
Where the peer stacks the experts of a layer in one tensor, its stack is taken apart.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scripts.family_table.ours import read_tensors, same

_MADE = ("weight_scale", "weight_scale_2", "input_scale")
_STACK = re.compile(
    r"(?P<experts>.+\.experts)\.(?P<leaf>gate_up_proj|down_proj)(?:_(?P<kind>\w+))?"
)


def compare(ours: Path, theirs: Path) -> dict[str, Any]:
    """Return how many of our tensors are equal to the peer's, which differ, and which it lacks."""
    mine, peers = read_tensors(ours), dict(_unstacked(read_tensors(theirs)))
    layers = {name.removesuffix(".weight_scale") for name in mine if name.endswith(".weight_scale")}
    made = [f"{layer}.{leaf}" for layer in sorted(layers) for leaf in ("weight", *_MADE)]
    kept = [name for name in sorted(mine) if name not in made]
    wanted = [name for name in (*made, *kept) if name in mine]
    lacks = [name for name in wanted if name not in peers]
    different = [name for name in wanted if name in peers and not _equal(mine[name], peers[name])]
    extra = [name for name in peers if name not in mine and _is_made(name)]
    return {
        "error": None,
        "compared": len(wanted) - len(lacks),
        "different": different[:10],
        "num_different": len(different),
        "peer_lacks": lacks[:10],
        "num_peer_lacks": len(lacks),
        "peer_has_more": extra[:10],
        "num_peer_has_more": len(extra),
    }


def _is_made(name: str) -> bool:
    return name.endswith(tuple(f".{leaf}" for leaf in _MADE))


def _equal(mine: Tensor, peers: Tensor) -> bool:
    if same(mine, peers):
        return True
    if mine.shape == peers.shape and mine.dtype == peers.dtype == torch.float8_e4m3fn:
        steps = mine.view(torch.uint8).int() - peers.view(torch.uint8).int()
        return mine.ndim > 1 and int(steps.abs().max()) <= 1
    if mine.numel() == peers.numel() == 1 and mine.dtype == peers.dtype:
        return same(mine.reshape(()), peers.reshape(()))
    return False


def _unstacked(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield tensors by the names of single experts; stacks have inputs before outputs."""
    for name, tensor in tensors.items():
        found = _STACK.fullmatch(name)
        if found is None or f"{found['experts']}.{found['leaf']}_weight_scale" not in tensors:
            yield name, tensor
            continue
        kind = found["kind"] or "weight"
        leaves = ("gate_proj", "up_proj") if found["leaf"] == "gate_up_proj" else ("down_proj",)
        for expert in range(tensors[f"{found['experts']}.{found['leaf']}"].shape[0]):
            one = tensor[expert] if tensor.ndim else tensor
            matrix = one.t().contiguous() if one.ndim == 2 else one  # noqa: PLR2004 -- a matrix
            parts = matrix.chunk(len(leaves)) if matrix.ndim == 2 else [matrix] * len(leaves)  # noqa: PLR2004 -- as above
            for leaf, part in zip(leaves, parts, strict=True):
                yield f"{found['experts']}.{expert}.{leaf}.{kind}", part
