"""What a configuration says of a model's shape: two of one architecture say the same.

Read from names and not from a list of families: how many there are of something (`num_...`), how
large it is (`..._size`, `..._dim`), of which classes and kinds of layers. What a quantized
checkpoint may say otherwise than its source is left out: how it is quantized, how it generates, and
whether the draft head is there, which verification looks after.
"""

import re
from collections.abc import Iterator, Mapping

_SHAPE = re.compile(
    r"(num|n)_.*|d_.*|.*_(size|dim|dims|rank|ratio|heads|layers|experts)|hidden|layers|heads|depth|"
    r"layer_types|hybrid_override_pattern|block_types"
)
_NAMES = ("architectures", "model_type")
"""Of the whole model alone: its parts' are spelled in several ways."""
_OTHER = re.compile(
    r".*quantization.*|compression_config|.*(nextn|mtp|draft).*|num_(beams?|beam_groups|labels)|"
    r"num_return_sequences|no_repeat_ngram_size|encoder_no_repeat_ngram_size|"
    r".*(cache|window|chunk|batch|group)_size|num_logits_to_keep"
)


def architecture_of(config: Mapping[str, object]) -> Mapping[str, str]:
    """Return what a config.json says of the model's shape, by dotted name."""
    named = ((name, str(config[name])) for name in _NAMES if name in config)
    return dict(sorted((*named, *_shapes(config, ""))))


def difference(one: Mapping[str, str], other: Mapping[str, str]) -> str | None:
    """Return the first thing that both say and say differently; None for one architecture."""
    for name in sorted(one.keys() & other.keys()):
        if one[name] != other[name]:
            return f"{name} is {one[name]} in the one and {other[name]} in the other"
    return None


def _shapes(values: Mapping[str, object], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = str(key)
        if _OTHER.fullmatch(name):
            continue
        if isinstance(value, Mapping):
            yield from _shapes(value, f"{prefix}{name}.")
        elif _SHAPE.fullmatch(name) and isinstance(value, str | int | list):
            yield f"{prefix}{name}", str(value)
