"""Names of layers as the running model has them, whatever files call them."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from harness.artifacts import Linear
from harness.models import open_source, read_inventory

_LEAVES = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}


def as_runs(linear: Linear) -> str:
    """Return a layer's name in the running model, which the peer exports if it cannot rename."""
    if linear.experts is None:
        return linear.parameter.tensor.removesuffix(".weight")
    leaf = linear.name.rpartition(".")[2]
    return f"{linear.experts}.{linear.expert}.{_LEAVES.get(leaf, leaf)}"


def running_names(model: Path) -> Mapping[str, str]:
    """Return the running model's names of all layers, by those of the files."""
    linears = read_inventory(open_source(str(model))).linears
    names = {one.name: as_runs(one) for one in linears}
    # Several layers of the files may be parts of one, and keep their own names.
    count = Counter(names.values())
    return {name: running for name, running in names.items() if count[running] == 1}


def renamed(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Return tensors under other names of their layers."""
    found: dict[str, Tensor] = {}
    for name, one in tensors.items():
        module, _, leaf = name.rpartition(".")
        found[f"{names[module]}.{leaf}" if module in names else name] = one
    return found
