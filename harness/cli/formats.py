"""What `harness formats` prints: what can be made, its size, and what loads it."""

from collections.abc import Iterable, Sequence

from harness.artifacts import KvFormat
from harness.cli.console import Result
from harness.engines import Loader, is_in_sources, loaders_of
from harness.formats import get_scheme
from harness.recipe import ENDINGS, Made, endings, shipped_formats

REFERENCE = "reference"
_COLUMNS = "{:<26} {:<28} {:>10}  {}"
_HEAD = ("format", "algorithms", "bits", "loaded by")


def list_formats() -> Result:
    """Say what can be made."""
    made = shipped_formats()
    lines = [
        _COLUMNS.format(*_HEAD),
        *(_COLUMNS.format(*_row(one)) for one in made),
        f"names of NVFP4 may end with how its numbers are chosen: {endings()}",
        f"key/value caches, each with any of these: {', '.join(KvFormat)}",
        "bits: of a large weight, scales of blocks included",
        "loaded by: what was served and seen; 'dense' does not load routed experts of it, and",
        "           'reference' is harness's own engine, for small models",
    ]
    values = {
        "formats": [_values(one) for one in made],
        "endings": {name: list(some) for name, some in ENDINGS.items()},
        "kv_cache": [str(one) for one in KvFormat],
    }
    return Result(text="\n".join(lines), values=values)


def _row(made: Made) -> tuple[str, str, str, str]:
    bits = " or ".join(f"{get_scheme(one).bits_per_weight:g}" for one in made.schemes)
    return made.name, ", ".join(made.schemes), bits, _engines(made.schemes)


def _engines(schemes: Sequence[str]) -> str:
    found = [f"{one.engine}{_narrowed(one)}" for one in loaders_of(schemes)]
    if not found:
        found = ["vllm's sources (not tried)" if is_in_sources(schemes) else "no vllm"]
    return ", ".join([*found, REFERENCE])


def _narrowed(one: Loader) -> str:
    return "" if one.layers == "all" else f" ({one.layers})"


def _values(made: Made) -> dict[str, object]:
    return {
        "name": made.name,
        "description": made.description,
        "algorithms": list(made.schemes),
        "bits_per_weight": {one: get_scheme(one).bits_per_weight for one in made.schemes},
        "kv_cache": str(made.kv_cache),
        "loaded_by": _loaded_by(loaders_of(made.schemes)),
        "in_vllm_sources": is_in_sources(made.schemes),
    }


def _loaded_by(found: Iterable[Loader]) -> list[dict[str, str]]:
    return [
        *({"engine": one.engine, "layers": one.layers} for one in found),
        {"engine": REFERENCE, "layers": "all"},
    ]
