"""Matrices that lie among the experts and that nothing multiplies with.

LongCat's experts from the number on that config.json names hand their input on as it is
(`zero_expert_num`). transformers keeps gate and up of these too; no engine asks for them.
"""

from collections.abc import Mapping

from harness.verify.modules import expert_of

_COUNT, _PASSING = "n_routed_experts", "zero_expert_num"


def is_idle(name: str, config: Mapping[str, object]) -> bool:
    """Return whether a module is a projection of an expert that passes its input on."""
    count, passing = config.get(_COUNT), config.get(_PASSING)
    expert = expert_of(name)
    if expert is None or not isinstance(count, int) or not isinstance(passing, int):
        return False
    return count <= expert.number < count + passing
