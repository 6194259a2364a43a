"""What cannot be asked of a model's modules, each with its reason. Everything else is found."""

from collections.abc import Mapping

NEVER_READ_TEXT: Mapping[str, tuple[str, ...]] = {
    "Ernie4_5_VLMoeMoeBlock": ("vision_moe",),
}
"""Parts of the text decoder's modules, by the module's class, that only images reach: text cannot
calibrate them, and nothing about the parts themselves tells. The block sends each token by its
kind to the one or the other."""
