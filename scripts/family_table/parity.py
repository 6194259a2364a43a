"""Our tensors beside those of Model-Optimizer's export of the same model and the same samples.

Scales hold every range that was calibrated, so equal scales are equal ranges. NVFP4 codes must be
equal too; FP8 codes may be one step apart, for the peer rounds twice (harness/formats/README.md).

The peer gives some layers one range for their weights where no engine asks for it: all that read
the same input (cohere2's attention and MLP), and all experts of a layer that it stacks in one
tensor (llama4, gpt-oss), which is taken apart here. Such a layer is quantized once more with the
peer's range and must then be equal.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.formats import get_format
from harness.models import TensorReader, open_source, read_inventory
from scripts.family_table.names import as_runs, renamed
from scripts.family_table.ours import read_tensors, same

_STACK = re.compile(
    r"(?P<experts>.+\.experts)\.(?P<leaf>gate_up_proj|down_proj)(?:_(?P<kind>(?!bias)\w+))?"
)
_LARGEST = {"nvfp4": (6.0 * 448.0, "weight_scale_2"), "fp8": (448.0, "weight_scale")}
"""What an amax is divided by to become the scale of a whole weight, and that scale's name."""
_MATRIX = 2

Tensors = Mapping[str, Tensor]


def compare(model: Path, qformat: str, ours: Path, theirs: Path) -> dict[str, Any]:
    """Return how many of our tensors are equal to the peer's, which differ, and which it lacks."""
    mine, peers = read_tensors(ours), dict(_unstacked(read_tensors(theirs)))
    layers = sorted(n.removesuffix(".weight_scale") for n in mine if n.endswith(".weight_scale"))
    source = open_source(str(model))
    linears = {one.name: one for one in read_inventory(source).linears}
    peers = renamed(peers, {as_runs(one): one.name for one in linears.values()})
    with TensorReader(source) as reader:
        wider = _with_wider_ranges(
            qformat, layers, (mine, peers), lambda layer: reader.matrix(linears[layer].source)
        )
    mine |= wider
    plain = {name for name in mine if name.removesuffix(".weight") not in layers}
    more = {name for name in plain if f"{name}_scale" in peers}
    wanted = sorted(mine.keys() - more)
    lacks = [name for name in wanted if name not in peers]
    different = [name for name in wanted if name in peers and not _equal(mine[name], peers[name])]
    return {
        "error": None,
        "compared": len(wanted) - len(lacks),
        "wider": len({name.rpartition(".")[0] for name in wider}),
        "quantized_by_peer_alone": sorted(more)[:10],
        "different": different[:10],
        "num_different": len(different),
        "peer_lacks": lacks[:10],
        "num_peer_lacks": len(lacks),
    }


def _with_wider_ranges(
    qformat: str,
    layers: list[str],
    both: tuple[Tensors, Tensors],
    weight_of: Callable[[str], Tensor],
) -> dict[str, Tensor]:
    """Return what becomes of the layers whose weights the peer gave a larger range than needed."""
    mine, peers = both
    largest, scale = _LARGEST[qformat]
    made: dict[str, Tensor] = {}
    for layer in layers:
        name = f"{layer}.{scale}"
        if name in peers and peers[name].numel() == 1 and peers[name] > mine[name]:
            amax = (peers[name].float().reshape(()) * largest).bfloat16().item()
            stored = get_format(qformat).quantize_weight(weight_of(layer), amax=amax)
            made |= {f"{layer}.{suffix}": one for suffix, one in stored.items()}
    return made


def _equal(mine: Tensor, peers: Tensor) -> bool:
    if same(mine, peers):
        return True
    if mine.shape == peers.shape and mine.dtype == peers.dtype == torch.float8_e4m3fn:
        steps = mine.view(torch.uint8).int() - peers.view(torch.uint8).int()
        return mine.ndim == _MATRIX and int(steps.abs().max()) <= 1
    if mine.numel() == peers.numel() == 1 and mine.dtype == peers.dtype:
        return same(mine.reshape(()), peers.reshape(()))
    return False


def _unstacked(tensors: Tensors) -> Iterator[tuple[str, Tensor]]:
    """Yield tensors by the names of single experts; stacks have inputs before outputs."""
    for name, tensor in tensors.items():
        found = _STACK.fullmatch(name)
        if found is None or f"{found['experts']}.{found['leaf']}_weight_scale" not in tensors:
            yield name, tensor
            continue
        experts, kind = found["experts"], found["kind"] or "weight"
        leaves = ("gate_proj", "up_proj") if found["leaf"] == "gate_up_proj" else ("down_proj",)
        # Those with biases are gpt-oss's, whose gate and up take turns.
        takes_turns = f"{experts}.gate_up_proj_bias" in tensors
        for expert in range(tensors[f"{experts}.{found['leaf']}"].shape[0]):
            one = tensor[expert] if tensor.ndim else tensor
            for leaf, part in zip(leaves, _parts(one, len(leaves), takes_turns), strict=True):
                yield f"{experts}.{expert}.{leaf}.{kind}", part


def _parts(one: Tensor, count: int, takes_turns: bool) -> list[Tensor]:  # noqa: FBT001 -- of one caller
    """Return the rows of each projection of an expert; a scale is all of theirs."""
    if one.ndim != _MATRIX:
        return [one] * count
    rows = one.t().contiguous()
    if takes_turns:
        return [rows[index::count].contiguous() for index in range(count)]
    return [part.contiguous() for part in rows.chunk(count)]
