"""What the reference engine can compute of what a checkpoint declares: modelopt's layout, ours."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.artifacts import Linear
from harness.engines import (
    MODELOPT,
    Declaration,
    Rules,
    any_engine,
    has_kv_scales,
    parts_of,
    read_declared,
)
from harness.errors import EngineError, ReasonCode, RecipeError
from harness.formats import Scheme, get_scheme
from harness.models import Source

_KV = {"FP8": "fp8", "NVFP4": "nvfp4"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Computable:
    """How a checkpoint says that it is to be computed, in formats that harness has."""

    algorithms: frozenset[str] = frozenset()
    """Names of the schemes of its layers; none for an unquantized checkpoint."""
    rules: Rules | None = None
    """What each layer is taken for."""
    kv: str | None = None
    """Format of keys and values: `fp8`, `nvfp4`; None where they stay as they are."""
    kv_calibrated: bool = False
    """Whether the files hold scales of keys and values; modelopt's files do not tell."""

    def schemes(self, linears: Iterable[Linear]) -> Mapping[str, Scheme]:
        """Return the scheme of each layer that an engine would load as quantized, by its name."""
        if self.rules is None:
            return {}
        asked = self.rules.algorithms(linear.name for linear in linears)
        return {name: get_scheme(algorithm) for name, algorithm in asked.items() if algorithm}

    def parts(self) -> tuple[str, ...]:
        """Return what is declared, as Deployment lists it."""
        return parts_of(self.algorithms, kv=self.kv)


def read_computable(source: Source) -> Computable:
    """Read the configuration of a checkpoint that the reference engine can compute.

    Raises:
        UsageError: it declares what harness does not read.
        EngineError: its files contradict each other, or declare what this engine does not compute.
    """
    declared = read_declared(source)
    if declared is None or source.packed:  # an original, read as the numbers that it means
        return Computable()
    algorithms = _algorithms(declared)
    for name in sorted(algorithms):
        try:
            get_scheme(name)
        except RecipeError as error:
            raise _refused(source, f"{error}") from error
    if declared.layout != MODELOPT:
        raise _refused(source, f"it has the tensors of {declared.layout}.")
    return Computable(
        algorithms=algorithms,
        rules=any_engine().rules(declared, source.config),
        kv=_KV.get(declared.kv_algorithm or ""),
        kv_calibrated=has_kv_scales(source, declared),
    )


def _algorithms(declared: Declaration) -> frozenset[str]:
    """Return the algorithms of the layers; one that is unknown is among them."""
    if declared.names_layers:
        return frozenset(layer.algorithm for layer in declared.layers.values())
    return frozenset({str(declared.algorithm)})


def _refused(source: Source, why: str) -> EngineError:
    message = f"'{source.path}' cannot be served by the reference engine: {why} Use --engine vllm."
    return EngineError(message, reason=ReasonCode.UNSUPPORTED_FORMAT)
