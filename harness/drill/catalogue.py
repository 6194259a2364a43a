"""All known faults, and the formats whose correct runs must get GO beside them."""

from harness.drill import declarations, engines, making, scales, weights
from harness.drill.fault import DrillFormat, Fault
from harness.errors import UsageError

FORMATS = (
    DrillFormat(name="nvfp4", qformat="nvfp4"),
    DrillFormat(name="nvfp4_experts_only", qformat="nvfp4_experts_only"),
    DrillFormat(name="nvfp4_mlp_only", qformat="nvfp4_mlp_only"),
    DrillFormat(name="w4a16_nvfp4", qformat="w4a16_nvfp4"),
    DrillFormat(name="fp8", qformat="fp8"),
    DrillFormat(name="nvfp4+kv-fp8", qformat="nvfp4", kv_cache="fp8"),
)

FAULTS: tuple[Fault, ...] = (
    *making.SEED_FAULTS,
    *scales.FAULTS,
    *weights.FAULTS,
    *declarations.FAULTS,
    *making.FAULTS,
    *engines.FAULTS,
)


def find_fault(name: str) -> Fault:
    """Return the fault called `name`.

    Raises:
        UsageError: there is none.
    """
    for fault in FAULTS:
        if fault.name == name:
            return fault
    message = f"unknown fault '{name}'. 'harness drill --list' names all {len(FAULTS)}."
    raise UsageError(message)


def find_format(name: str) -> DrillFormat:
    """Return the format called `name`, as faults spell it."""
    return next(form for form in FORMATS if form.name == name)
