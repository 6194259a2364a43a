"""A copy of a decoder layer in memory, whose weights may become others."""

import copy

from harness.models.observe import configurations
from harness.models.stream import ResidentLayer


def twin_of(layer: ResidentLayer) -> ResidentLayer:
    """Return a layer with the same weights in memory of their own.

    The configuration is that of the layer, so that both run their experts in the same way.
    """
    shared = {id(one): one for one in configurations(layer.module)}
    return layer._replace(module=copy.deepcopy(layer.module, memo=shared))
