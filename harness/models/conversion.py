"""Where each parameter of a running model lies in the files: transformers' conversion, executed.

Files and running models spell and arrange weights differently: experts are stacked, gate and up lie
in one tensor, matrices are transposed, rows interleaved. transformers knows how (its conversion
mapping), in operations that cannot be asked but can be run. So they are run on stand-ins whose
values are their own coordinates: what arrives in a parameter tells, value by value, which element
of which tensor it is.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from harness.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OWNER_BITS = 40
"""A coordinate is the number of its tensor, shifted by so many bits, and the element's index."""
_MOST_NUMEL = 1 << 20
"""Values of a parameter up to which its stand-ins have their true size."""
_LEAST_SIDE = 4
"""Of a matrix that was made smaller: halves of it must still have rows to be told apart by."""
_KEEP_PROPORTIONS = frozenset(
    {"MergeModulelist", "SplitModulelist", "Concatenate", "Chunk", "Transpose", "Interleave"}
)
"""Operations that do to a smaller matrix what they do to a large one."""

Shape = tuple[int, ...]


class Arrived(NamedTuple):
    """What arrived in a parameter."""

    tensors: tuple[str, ...]
    """Of the files, in the order of their numbers."""
    coordinates: Tensor | None
    """Of each value, int64; None where the one tensor is the parameter, as it is."""
    shrunk: int = 1
    """By how much the last two dimensions were divided."""


class Conversion:
    """The mapping between the names of a model's parameters and those of its files."""

    def __init__(self, model: "PreTrainedModel") -> None:
        """Ask transformers for the mapping of a model and of the models within it."""
        from transformers.conversion_mapping import (  # noqa: PLC0415 -- takes seconds
            get_model_conversion_mapping,
        )
        from transformers.core_model_loading import (  # noqa: PLC0415 -- takes seconds
            WeightConverter,
            WeightRenaming,
        )

        self._model = model
        mapping = get_model_conversion_mapping(model)
        self._renamings = [one for one in mapping if isinstance(one, WeightRenaming)]
        self._converters = [one for one in mapping if isinstance(one, WeightConverter)]
        self._by_pattern = {p: one for one in self._converters for p in one.source_patterns}
        self._state: dict[str, Tensor] = model.state_dict(keep_vars=True)

    def place(self, shapes: Mapping[str, Shape]) -> tuple[Mapping[str, Arrived], Sequence[str]]:
        """Return what arrives in each parameter, and the tensors that arrive nowhere.

        Args:
            shapes: of the tensors of the files, unpacked.

        Raises:
            ModelError: tensors cannot be put together as transformers would.
        """
        arrived: dict[str, Arrived] = {}
        collected: dict[str, list[tuple[str, str]]] = defaultdict(list)
        strange: list[str] = []
        for name in _in_order(shapes):
            parameter, pattern = self._parameter_of(name)
            if parameter not in self._state:
                strange.append(name)
            elif pattern is None:
                arrived[parameter] = Arrived((name,), None)
            else:
                collected[parameter].append((pattern, name))
        for parameter, sources in collected.items():
            arrived |= self._convert(parameter, sources, shapes)
        return arrived, strange

    def file_names(self, parameter: str) -> Sequence[str]:
        """Return how files would spell a parameter that they lack; several that it is made of.

        `*` stands for the number of an expert.
        """
        from transformers.core_model_loading import (  # noqa: PLC0415 -- takes seconds
            rename_source_key,
        )

        renamings, converters = self._reverse
        name, pattern = rename_source_key(parameter, renamings, converters, reverse=True)
        for converter in converters:
            if pattern in converter.source_patterns:
                first, *others = (_literal(p) for p in converter.target_patterns)
                spelled = _literal(name)
                return [spelled, *(spelled.replace(first, other) for other in others)]
        return [name]

    @cached_property
    def _reverse(self) -> tuple[list[Any], list[Any]]:
        from transformers.conversion_mapping import (  # noqa: PLC0415 -- takes seconds
            get_model_conversion_mapping,
        )
        from transformers.core_model_loading import (  # noqa: PLC0415 -- takes seconds
            PrefixChange,
            WeightConverter,
            WeightRenaming,
        )

        mapping = get_model_conversion_mapping(self._model, add_legacy=False)
        back = [
            one.reverse_transform() for one in mapping[::-1] if not isinstance(one, PrefixChange)
        ]
        return (
            [one for one in back if isinstance(one, WeightRenaming)],
            [one for one in back if isinstance(one, WeightConverter)],
        )

    def _parameter_of(self, name: str) -> tuple[str, str | None]:
        """Return the parameter that a tensor goes to, and the converter's pattern that it fits."""
        from transformers.core_model_loading import (  # noqa: PLC0415 -- takes seconds
            rename_source_key,
        )

        prefix, state = self._model.base_model_prefix, self._state
        found = rename_source_key(name, self._renamings, self._converters, prefix, state)
        if found[0] not in state and name in state:
            found = rename_source_key(name, [], [], prefix, state)
        return found

    def _convert(
        self, parameter: str, sources: Sequence[tuple[str, str]], shapes: Mapping[str, Shape]
    ) -> Mapping[str, Arrived]:
        """Run a converter on the stand-ins of its tensors."""
        converter = deepcopy(self._by_pattern[sources[0][0]])
        target = tuple(self._state[parameter].shape)
        kinds = {type(operation).__name__ for operation in converter.operations}
        factor = 1
        if kinds <= _KEEP_PROPORTIONS:
            factor = _factor([*(shapes[name] for _, name in sources), target])
        for number, (pattern, name) in enumerate(sources):
            shape = shrink(shapes[name], factor)
            ids = torch.arange(math.prod(shape), dtype=torch.int64).view(shape)
            numbered: Any = ids + (number << OWNER_BITS)  # it may be a tensor, or one to come
            converter.add_tensor(parameter, name, pattern, numbered)
        try:
            found = converter.convert(
                parameter,
                model=_OfShape(self._model, shrink(target, factor)),
                config=self._model.config,
            )
        except (LookupError, RuntimeError, TypeError, ValueError) as error:
            message = (
                f"'{sources[0][1]}' and {len(sources) - 1} more tensor(s) do not make up "
                f"'{parameter}' {list(target)} ({' '.join(str(error).split())[:200]}). "
                "Correct config.json, or download the model again."
            )
            raise ModelError(message) from error
        tensors = tuple(name for _, name in sources)
        return {
            name: self._checked(
                name, value[0] if isinstance(value, list) else value, tensors, factor
            )
            for name, value in found.items()
        }

    def _checked(
        self, parameter: str, value: Tensor, tensors: tuple[str, ...], factor: int
    ) -> Arrived:
        """Refuse what has not the shape of its parameter."""
        place = self._state.get(parameter)
        if place is None or tuple(value.shape) != shrink(tuple(place.shape), factor):
            asked = "nothing of the name" if place is None else list(place.shape)
            message = (
                f"'{tensors[0]}' makes up '{parameter}' {list(_grow(value.shape, factor))}, but "
                f"config.json asks for {asked}. Correct config.json, or download the model again."
            )
            raise ModelError(message)
        return Arrived(tensors, value, factor)


class _OfShape:
    """Stands for the model where an operation asks for the shape of its parameter."""

    def __init__(self, model: "PreTrainedModel", shape: Shape) -> None:
        self._model, self.shape = model, shape

    def get_parameter(self, _: str) -> "_OfShape":
        return self

    def get_parameter_or_buffer(self, _: str) -> "_OfShape":
        return self

    def __getattr__(self, name: str) -> object:
        return getattr(self._model, name)


def shrink(shape: Shape, factor: int) -> Shape:
    """Return a shape whose last two dimensions are divided by `factor`."""
    if len(shape) < 2:  # noqa: PLR2004  # no matrix
        return shape
    return (*shape[:-2], shape[-2] // factor, shape[-1] // factor)


def _grow(shape: Iterable[int], factor: int) -> Shape:
    *others, rows, columns = (1, *shape)
    return (*others[1:], rows * factor, columns * factor)


def _factor(shapes: Sequence[Shape]) -> int:
    """Return by how much all matrices may be divided, so that stand-ins stay small."""
    if math.prod(shapes[-1]) <= _MOST_NUMEL or any(len(shape) < 2 for shape in shapes):  # noqa: PLR2004  # no matrix
        return 1
    sides = [side for shape in shapes for side in shape[-2:]]
    factor = math.gcd(*sides)
    while factor > 1 and (
        min(sides) // factor < _LEAST_SIDE or any(side // factor % 2 for side in sides)
    ):
        factor = max(one for one in range(1, factor) if factor % one == 0)
    return factor


def _literal(pattern: str) -> str:
    """Return the text that a pattern of the mapping stands for."""
    return re.sub(r"\\(?=\.)", "", pattern).removeprefix("^").removesuffix("$")


def _in_order(names: Iterable[str]) -> list[str]:
    """Return names as transformers takes them: numbers by their value."""
    from transformers.core_model_loading import dot_natural_key  # noqa: PLC0415 -- takes seconds

    return sorted(names, key=dot_natural_key)
