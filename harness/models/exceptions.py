"""What cannot be asked of a model's modules, each with its reason. Everything else is found."""

from collections.abc import Mapping

PASS_ON = frozenset({"LongcatFlashExperts"})
"""Modules of experts some of which hand their input on as it is: gate and up have a matrix for each
of these too, which nothing multiplies with, and down has none. The flags do not say so."""
NEVER_READ_TEXT: Mapping[str, tuple[str, ...]] = {
    "Ernie4_5_VLMoeMoeBlock": ("vision_moe",),
}
"""Parts of the text decoder's modules, by the module's class, that only images reach: text cannot
calibrate them, and nothing about the parts themselves tells. The block sends each token by its
kind to the one or the other."""
