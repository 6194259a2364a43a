"""What a module of routed experts is: which of its parameters hold which projection, and how.

transformers states it for nearly all: its decorator `use_experts_implementation` leaves flags on
the module (`has_gate`, `is_transposed`, `is_concatenated`, `has_bias`). Of the few others the
shapes of both projections tell. What they leave open is refused, not guessed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from harness.artifacts import Slice
from harness.errors import ModelError
from harness.models.exceptions import PASS_ON

_STACK = 3
_FLAGS = ("has_gate", "is_transposed", "is_concatenated", "has_bias")
_GATED, _GATE, _UP, _DOWN = "gate_up_proj", "gate_proj", "up_proj", "down_proj"
_ROLES = {_GATED: ("gate", "up"), _GATE: ("gate",), _UP: ("up",), _DOWN: ("down",)}
_CONVOLUTIONS = nn.modules.conv._ConvNd  # noqa: SLF001  # their only common class


@dataclass(frozen=True, kw_only=True, slots=True)
class Projection:
    """One linear layer of each expert, and where it lies in the module's parameter."""

    role: str
    """`gate`, `up` or `down`."""
    parameter: str
    """Name within the module."""
    num_parts: int = 1
    """2 where gate and up share the parameter."""
    part: int = 0
    is_concatenated: bool = True
    """Whether parts lie behind each other; else their rows take turns."""
    is_transposed: bool = False
    """Whether the parameter is [expert, in, out]."""

    def rows_of(self, num_rows: int) -> tuple[tuple[int, int] | None, int]:
        """Return the rows of `num_rows` that are this projection's, and their distance."""
        if self.num_parts == 1:
            return None, 1
        if not self.is_concatenated:
            return (self.part, num_rows), self.num_parts
        each = num_rows // self.num_parts
        return (self.part * each, (self.part + 1) * each), 1

    def within(self, path: str, expert: int, shape: tuple[int, ...]) -> Slice:
        """Return where an expert's weight lies in the parameter, whose shape is given."""
        rows, step = self.rows_of(shape[2] if self.is_transposed else shape[1])
        name = f"{path}.{self.parameter}"
        return Slice(
            tensor=name, expert=expert, rows=rows, step=step, is_transposed=self.is_transposed
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Experts:
    """The routed experts of a layer."""

    path: str
    num_experts: int
    projections: tuple[Projection, ...]
    shapes: Mapping[str, tuple[int, ...]]
    """Of the parameters."""

    @property
    def block(self) -> str:
        """Return the path of the module that chooses experts and runs them."""
        return self.path.rpartition(".")[0]

    def size_of(self, projection: Projection) -> tuple[int, int]:
        """Return (out, in) of one expert's weight."""
        _, rows, columns = self.shapes[projection.parameter]
        if projection.is_transposed:
            rows, columns = columns, rows
        return rows // projection.num_parts, columns


def find_experts(model: nn.Module, hidden_size: int) -> Iterator[Experts]:
    """Yield every module that holds weights of several experts in one parameter.

    Args:
        model: its modules.
        hidden_size: of the decoder.

    Raises:
        ModelError: a module's parameters can be read in several ways, or in none.
    """
    for path, module in model.named_modules():
        stacks = {
            name: parameter
            for name, parameter in module.named_parameters(recurse=False)
            if parameter.ndim == _STACK
        }
        if all(hasattr(module, flag) for flag in _FLAGS):
            yield _stated(path, module, stacks)
        elif _DOWN in stacks and (_GATED in stacks or _UP in stacks):
            yield _seen(path, stacks, hidden_size, type(module).__name__)
        elif len(stacks) == 1 and not isinstance(module, _CONVOLUTIONS):
            (name,) = stacks
            if getattr(module, "num_experts", None) == stacks[name].shape[0]:
                yield _single(path, module, name, stacks[name])


def _stated(path: str, module: nn.Module, stacks: Mapping[str, Tensor]) -> Experts:
    """Read what transformers' decorator states."""
    has_gate, is_transposed, is_concatenated, _ = (getattr(module, flag) for flag in _FLAGS)
    wanted = {_GATED if has_gate else _UP, _DOWN}
    if stacks.keys() != wanted:
        raise _contradictory(path, f"it has the parameters {sorted(stacks)}, not {sorted(wanted)}")
    return _of(path, stacks, is_concatenated=is_concatenated, is_transposed=is_transposed)


def _seen(path: str, stacks: Mapping[str, Tensor], hidden_size: int, kind: str) -> Experts:
    """Read the shapes: what goes into the first projections and comes out of the last is hidden."""
    if strange := sorted(stacks.keys() - _ROLES.keys()):
        raise _contradictory(path, f"it has the parameter '{strange[0]}'")
    ends = [
        stack.shape[1:] if name == _DOWN else stack.shape[:0:-1] for name, stack in stacks.items()
    ]
    # [expert, out, in], or [expert, in, out]
    is_normal = all(first == hidden_size for first, _ in ends)
    is_turned = all(last == hidden_size for _, last in ends)
    if is_normal == is_turned:
        shapes = ", ".join(f"{name} {list(stack.shape)}" for name, stack in stacks.items())
        raise _contradictory(path, f"the shapes do not tell inputs from outputs ({shapes})")
    return _of(path, stacks, is_concatenated=True, is_transposed=is_turned, kind=kind)


def _of(
    path: str,
    stacks: Mapping[str, Tensor],
    *,
    is_concatenated: bool,
    is_transposed: bool,
    kind: str = "",
) -> Experts:
    counts = {name: stack.shape[0] for name, stack in stacks.items()}
    if len(set(counts.values())) > 1 and kind not in PASS_ON:
        raise _contradictory(path, f"its parameters hold different numbers of experts ({counts})")
    projections = []
    for name in stacks:
        roles = _ROLES[name]
        for part, role in enumerate(roles):
            one = Projection(
                role=role,
                parameter=name,
                num_parts=len(roles),
                part=part,
                is_concatenated=is_concatenated,
                is_transposed=is_transposed,
            )
            projections.append(one)
    return _experts(path, stacks, tuple(projections))


def _single(path: str, module: nn.Module, name: str, stack: Tensor) -> Experts:
    """Read a module that is one linear layer of every expert, [expert, out, in]."""
    sizes = tuple(getattr(module, size, None) for size in ("output_size", "input_size"))
    if sizes != tuple(stack.shape[1:]):
        raise _contradictory(path, f"'{name}' {list(stack.shape)} has no stated order")
    return _experts(path, {name: stack}, (Projection(role="", parameter=name),))


def _experts(
    path: str, stacks: Mapping[str, Tensor], projections: tuple[Projection, ...]
) -> Experts:
    shapes = {name: tuple(stack.shape) for name, stack in stacks.items()}
    num_experts = min(shape[0] for shape in shapes.values())
    return Experts(path=path, num_experts=num_experts, projections=projections, shapes=shapes)


def _contradictory(path: str, why: str) -> ModelError:
    return ModelError(
        f"'{path}' holds routed experts that are not understood: {why}. Understood are "
        "transformers' experts (use_experts_implementation), and gate_up_proj or up_proj with "
        "down_proj of shapes that differ."
    )
