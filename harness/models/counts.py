"""Are the counts in config.json possible beside what the weight files hold?

A count of 10**10 layers or experts costs nothing to write and hours and all memory to believe, for
libraries make a module or a list entry of each. So they are held against the files' headers before
anything is built. Bounds are generous: this tells the impossible from the possible, no more.
"""

from collections.abc import Iterable, Iterator, Mapping

from harness.artifacts import TensorHeader
from harness.errors import ModelError

_LAYERS, _EXPERTS, _OTHERS = 256, 1024, 1 << 20
"""So many are never too many: what they cost is a second."""
_ENDINGS = ("num_hidden_layers", "depth")
_STACK_DIMS = 3


def refuse_impossible_counts(
    path: object, config: Mapping[str, object], tensors: Mapping[str, TensorHeader]
) -> None:
    """Refuse counts of layers, experts and others that the files cannot fill.

    Args:
        path: of config.json, for the error.
        config: what it holds.
        tensors: of all weight files.

    Raises:
        ModelError: a count is negative or far beyond the files.
    """
    numbers = len({part for name in tensors for part in name.split(".") if part.isdecimal()})
    stacked = max((h.shape[0] for h in tensors.values() if len(h.shape) == _STACK_DIMS), default=0)
    for key, value in _counts(config):
        most = _OTHERS
        if key.endswith(("layers", "layer", "depth")):
            most = max(_LAYERS, numbers)
        elif "expert" in key:
            most = max(_EXPERTS, numbers, stacked)
        if not -1 <= value <= most:
            message = (
                f"'{path}' says '{key}': {value}, and the weight files have {len(tensors)} "
                "tensors. Correct config.json, or download the model again."
            )
            raise ModelError(message)


def _counts(values: object) -> Iterator[tuple[str, int]]:
    """Yield the keys that count something, at any depth, with their numbers."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            is_count = key.startswith(("num_", "n_")) or key.endswith(
                ("num_hidden_layers", "depth")
            )
            if is_count and type(value) is int:
                yield key, value
        inner: Iterable[object] = values.values()
    else:
        inner = values if isinstance(values, list) else ()
    for value in inner:
        yield from _counts(value)
