"""Which engines load a format: those that were served and seen, and what vLLM's sources know."""

from collections.abc import Iterable
from typing import NamedTuple

from harness.engines.algorithms import LOADED, MODELOPT
from harness.engines.capabilities import CAPABILITIES, Capability, Schemes
from harness.engines.demands import Demands


class Loader(NamedTuple):
    """An engine that loads a format."""

    engine: str
    """Such as `vllm 0.25.0 cuda`."""
    layers: str
    """`all`, or `dense` where it does not load routed experts of it."""


def loaders_of(algorithms: Iterable[str], *, layout: str = MODELOPT) -> tuple[Loader, ...]:
    """Return the engines that were seen to load checkpoints of all these algorithms."""
    wanted, found = frozenset(algorithms), list[Loader]()
    for one in CAPABILITIES:
        loads = one.schemes.get(layout, Schemes(everywhere=frozenset()))
        name = f"vllm {one.version} {one.platform}"
        if wanted <= loads.everywhere:
            found.append(Loader(name, "all"))
        elif wanted <= loads.everywhere | loads.dense_only:
            found.append(Loader(name, "dense"))
    return tuple(found)


def engines_for(demands: Demands) -> tuple[str, ...]:
    """Return the engines that were seen to load what is demanded; the reference engine apart."""
    return tuple(
        f"vllm {one.version} {one.platform}" for one in CAPABILITIES if _was_seen(one, demands)
    )


def _was_seen(capability: Capability, demands: Demands) -> bool:
    seen = capability.schemes.get(demands.layout, Schemes(everywhere=frozenset()))
    return (
        demands.linears <= seen.everywhere | seen.dense_only
        and demands.experts <= seen.everywhere
        and (demands.kv is None or demands.kv in capability.kv)
    )


def is_in_sources(algorithms: Iterable[str], *, layout: str = MODELOPT) -> bool:
    """Return whether vLLM has code for all these algorithms, on some platform."""
    return frozenset(algorithms) <= LOADED.get(layout, frozenset())
