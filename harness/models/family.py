"""What differs between model families, as data: names, experts, routers, fused groups.

All code in this package is the same for every family. A family is one file that holds one
`Family`; `find_family` lists them.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """How a family spells its tensors, and which layers belong together."""

    name: str
    """Of its file."""
    model_types: tuple[str, ...]
    """Values of config.json's model_type."""
    fused: Mapping[str, tuple[str, ...]]
    """Linear layers beside each other that engines run as one, by the name of that one. They see
    the same input and must share their global scales."""
    experts: str = ""
    """End of the module path of routed experts in the running model; empty for dense models."""
    projections: Mapping[str, tuple[str, ...]]
    """By parameter of the experts' module, shape [expert, out, in]: the linear layers whose rows
    it stacks, as the files spell them, from the first row on."""
    routers: tuple[str, ...] = ()
    """Ends of the module paths of routers in the running model."""
    renames: tuple[tuple[str, str], ...] = ()
    """Parts of a path: (in the running model, in the files), where they differ."""
    passthrough: str | None = None
    """Regular expression of tensors that the running model has no place for; they are copied."""

    def file_name(self, name: str) -> str:
        """Return how the files spell a name of the running model."""
        for in_model, in_files in self.renames:
            name = name.replace(in_model, in_files)
        return name

    def group(self, name: str) -> str:
        """Return the name of the fused layer that `name` is a part of; `name` where it is alone."""
        parent, _, leaf = name.rpartition(".")
        for fused, members in self.fused.items():
            if leaf in members:
                return f"{parent}.{fused}"
        return name
