"""How the files of a model spell its layers, also where they hold several in one tensor."""

from collections.abc import Mapping, Sequence
from functools import cached_property

from harness.models.conversion import Arrived, Conversion
from harness.models.routed import Experts, Projection

_WEIGHT = ".weight"


class Names:
    """The spellings of one model's files.

    What lies in a tensor of its own is called as that tensor. Of the rest transformers says how its
    files would call it; experts that no mapping takes apart are called `gate_proj`, `up_proj` and
    `down_proj`, which engines load.
    """

    def __init__(self, conversion: Conversion, arrived: Mapping[str, Arrived]) -> None:
        """Take what is known of the files."""
        self._conversion, self._arrived = conversion, arrived

    def tensors(self, parameter: str, num_experts: int) -> Sequence[str]:
        """Return the tensors that a parameter of so many experts would be."""
        names = map(self._spelled, self._conversion.file_names(parameter))
        return [
            name.replace("*", str(expert))
            for name in names
            for expert in (range(num_experts) if "*" in name else range(1))
        ]

    def module(self, path: str) -> str:
        """Return the name of a module that has a weight."""
        arrived = self._arrived.get(path + _WEIGHT)
        if arrived is not None and arrived.coordinates is None:
            return arrived.tensors[0].removesuffix(_WEIGHT)
        name = self._conversion.file_names(path + _WEIGHT)
        # Of several layers in one tensor each keeps its own name.
        is_shared = arrived is not None or len(name) > 1
        return self._spelled(path if is_shared else name[0].removesuffix(_WEIGHT))

    def of_experts(self, experts: Experts, projection: Projection) -> Sequence[str]:
        """Return the names of a projection of all experts, in their order."""
        template = self._templates(experts)[projection.role]
        return [template.replace("*", str(expert)) for expert in range(experts.num_experts)]

    def leaf(self, experts: Experts, projection: Projection) -> str:
        """Return the last part of the names of a projection."""
        return self._templates(experts)[projection.role].rpartition(".")[2]

    def _templates(self, experts: Experts) -> Mapping[str, str]:
        """Return the names of the projections by role, with `*` for the number of an expert."""
        if experts.path not in self._known:
            self._known[experts.path] = self._make_templates(experts)
        return self._known[experts.path]

    @cached_property
    def _known(self) -> dict[str, Mapping[str, str]]:
        return {}

    def _make_templates(self, experts: Experts) -> Mapping[str, str]:
        found: dict[str, str] = {}
        for one in experts.projections:
            names = self._conversion.file_names(f"{experts.path}.{one.parameter}")
            if len(names) == one.num_parts and all("*" in name for name in names):
                spelled = names[one.part].removesuffix(_WEIGHT)
            elif one.role:
                spelled = f"{_experts_of(names[0].removesuffix(_WEIGHT))}.*.{one.role}_proj"
            else:
                spelled = f"{names[0].removesuffix(_WEIGHT)}.*"
            found[one.role] = self._spelled(spelled)
        return found

    def _spelled(self, name: str) -> str:
        """Return a name with the beginning that the files have instead of transformers'."""
        for theirs, ours in self._beginnings:
            if name.startswith(theirs):
                return ours + name[len(theirs) :]
        return name

    @cached_property
    def _beginnings(self) -> Sequence[tuple[str, str]]:
        """Return how names begin: as transformers would write them, and as they are here."""
        found: dict[str, str] = {}
        for parameter, arrived in self._arrived.items():
            if arrived.coordinates is not None:
                continue
            theirs, ours = self._conversion.file_names(parameter)[0], arrived.tensors[0]
            common = _common_end(theirs, ours)
            begin = theirs[: len(theirs) - len(common)], ours[: len(ours) - len(common)]
            # Those that differ within a layer are other names, and no other beginning.
            if theirs != ours and not any(map(str.isdecimal, "".join(begin))):
                found.setdefault(*begin)
        return sorted(found.items(), key=lambda item: -len(item[0]))


def _experts_of(name: str) -> str:
    """Return the path of the experts that the parameter `name` of all of them belongs to."""
    parent = name.rpartition(".")[0]
    return parent if parent.endswith("experts") else f"{parent}.experts"


def _common_end(one: str, other: str) -> str:
    """Return the part of both that is the same at their ends, from a dot on."""
    parts, others = one.split("."), other.split(".")
    same = 0
    while same < min(len(parts), len(others)) and parts[-1 - same] == others[-1 - same]:
        same += 1
    return "".join(f".{part}" for part in parts[len(parts) - same :]) if same < len(parts) else one
