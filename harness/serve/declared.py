"""What a checkpoint declares in its configuration files, read as vLLM's loaders do.

Two libraries write them. compressed-tensors (llmcompressor) puts groups of layers in `config.json`
(harness.formats.compressed), and vLLM serves that; the reference engine computes only the layout
of modelopt, which is ours too, and refuses the other by name.

modelopt: `config.json` holds a `quantization_config`, `hf_quant_config.json` says the same in other
words; vLLM takes the first and falls back to the second. Which layers stay as they were is a list
of patterns. vLLM tries each in three ways: equal to the layer's name, a part of the name of the
layer that it runs (`qkv_proj` for `q_proj`), or a wildcard for that name, where a trailing `*`
stands for the module itself and for all below it. The second hits more than one would think, and
what it hits here is what it hits there.

Source: vLLM 0.25.0 to 0.33.0, model_executor/layers/quantization/modelopt.py,
`ModelOptQuantConfigBase`, and quantization/utils/quant_utils.py, `is_layer_skipped`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from harness.artifacts import KvFormat, Linear
from harness.errors import EngineError, ReasonCode, RecipeError
from harness.formats import Scheme, get_declared_scheme, get_scheme
from harness.formats.compressed import (
    METHOD,
    algorithm_of,
    is_compressed,
    is_kv_fp8,
    quantization_section,
    read_groups,
)
from harness.models import Source
from harness.reading import bounds, read_json_object, refused_as

_VISION = ("vision_tower", "vision_model", "visual")
"""vLLM never quantizes a module with one of these in its name."""
_MANIFEST = "harness.json"
"""Written by our own exporter beside the checkpoint's files."""
_RECIPE = "recipe.yaml"
"""Written by llmcompressor beside the checkpoint's files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Declared:
    """How a checkpoint says that it is to be computed."""

    scheme: Scheme | None
    """None for an unquantized checkpoint."""
    ignore: tuple[str, ...]
    kv_fp8: bool
    kv_calibrated: bool
    """Whether the files hold scales of keys and values; modelopt's files do not tell."""
    layout: str = "modelopt"
    """Or `compressed-tensors`: whose spelling of tensors and patterns it is."""

    def quantizes(self, linear: Linear) -> bool:
        """Return whether an engine would load `linear` as quantized.

        Routed experts are decided as a whole, by the name of the module that holds them.
        """
        if self.scheme is None or any(part in linear.name for part in _VISION):
            return False
        if not linear.is_routed:
            return linear.name not in self._patterns() and not self._hits(linear.group)
        experts = linear.name.rsplit(".", 2)[0]
        return not self._hits(experts) and not any(experts in p for p in self._patterns())

    def parts(self) -> tuple[str, ...]:
        """Return what is declared, as Deployment lists it."""
        found = []
        if self.scheme is not None:
            found.append(f"weights:{self.scheme.weight_format}")
            if self.scheme.input_format is not None:
                found.append(f"inputs:{self.scheme.input_format}")
        if self.kv_fp8:
            found.append("kv:fp8")
        return tuple(found)

    def _patterns(self) -> tuple[str, ...]:
        """Return the patterns as vLLM rewrites them before it uses them."""
        rewritten: list[str] = []
        for pattern in self.ignore:
            is_tree = pattern.endswith("*") and not pattern.endswith(".*")
            rewritten += [pattern[:-1], f"{pattern[:-1]}.*"] if is_tree else [pattern]
        return tuple(rewritten)

    def _hits(self, run_as: str) -> bool:
        return any(p in run_as or fnmatchcase(run_as, p) for p in self._patterns())


def read_declared(source: Source) -> Declared:
    """Read the configuration files of `source`, whoever wrote them.

    Raises:
        EngineError: they are malformed, contradict each other, or declare what no engine is known
            to load.
    """
    section = quantization_section(source.config)
    path = source.path / "hf_quant_config.json"
    if is_compressed(section):
        groups = read_groups(section)
        dynamic = _mapping(section.get("kv_cache_scheme")).get("dynamic")
        return Declared(
            scheme=_scheme(source, str(algorithm_of(groups))),
            ignore=_names(section.get("ignore")),
            kv_fp8=is_kv_fp8(section),
            kv_calibrated=is_kv_fp8(section) and not dynamic,
            layout=METHOD,
        )
    beside = _read_json(source, path.name) if path.is_file() else None
    first = _from_config(section) if section else None
    second = _from_file(beside.get("quantization")) if beside is not None else None
    if first and second and (first[0], first[2]) != (second[0], second[2]):
        message = (
            f"'{source.path}': config.json declares {_spell(first)}, hf_quant_config.json "
            f"{_spell(second)}. Export the checkpoint again."
        )
        raise EngineError(message, reason=ReasonCode.INTEGRITY_FAILED)
    found = first or second
    if found is None:
        return Declared(scheme=None, ignore=(), kv_fp8=False, kv_calibrated=False)
    algorithm, ignore, kv_fp8 = found
    manifest = source.path / _MANIFEST
    kv_cache = _read_json(source, _MANIFEST).get("kv_cache") if manifest.is_file() else None
    return Declared(
        scheme=_scheme(source, algorithm.upper()),
        ignore=ignore,
        kv_fp8=kv_fp8,
        kv_calibrated=kv_cache == KvFormat.FP8,
    )


def read_computable(source: Source) -> Declared:
    """Read the configuration of a checkpoint that the reference engine can compute.

    Raises:
        EngineError: as `read_declared`, or the reference engine does not know the layout.
    """
    declared = read_declared(source)
    if declared.layout != "modelopt":
        message = (
            f"'{source.path}' has the tensors of {declared.layout}, which the reference engine "
            "does not read. Use --engine vllm."
        )
        raise EngineError(message, reason=ReasonCode.UNSUPPORTED_FORMAT)
    try:
        if declared.scheme is not None:
            get_scheme(declared.scheme.name)
    except RecipeError as error:
        message = f"'{source.path}' cannot be served by the reference engine: {error}"
        raise EngineError(message, reason=ReasonCode.UNSUPPORTED_FORMAT) from error
    return declared


def producer_of(source: Source) -> str | None:
    """Return who wrote a checkpoint, as far as its files say; None for an unquantized model."""
    section = quantization_section(source.config)
    beside = source.path / "hf_quant_config.json"
    named = _mapping(section.get("producer"))
    if (source.path / _MANIFEST).is_file():
        return "harness"
    if is_compressed(section):
        maker = "llmcompressor" if (source.path / _RECIPE).is_file() else "unknown"
        return f"{maker} ({METHOD} {section.get('version', 'of unknown version')})"
    if not named and beside.is_file():
        named = _mapping(_read_json(source, beside.name).get("producer"))
    if named:
        return f"{named.get('name')} {named.get('version')}"
    return "unknown" if section or beside.is_file() else None


def _scheme(source: Source, algorithm: str) -> Scheme:
    try:
        return get_declared_scheme(algorithm)
    except RecipeError as error:
        message = f"'{source.path}' declares what no engine here is known to load: {error}"
        raise EngineError(message, reason=ReasonCode.UNSUPPORTED_FORMAT) from error


_Found = tuple[str, tuple[str, ...], bool]
"""quant_algo, ignored modules, whether keys and values are FP8."""


def _from_config(section: Mapping[str, object]) -> _Found:
    scheme = section.get("kv_cache_scheme")
    is_fp8 = (
        isinstance(scheme, Mapping)
        and scheme.get("type") == "float"
        and scheme.get("num_bits") == 8  # noqa: PLR2004 -- bits of FP8
    )
    return str(section.get("quant_algo")), _names(section.get("ignore")), is_fp8


def _from_file(section: object) -> _Found:
    values = section if isinstance(section, Mapping) else {}
    kv = str(values.get("kv_cache_quant_algo") or "")
    return str(values.get("quant_algo")), _names(values.get("exclude_modules")), kv == "FP8"


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _names(listed: object) -> tuple[str, ...]:
    """Return the names in a list that a configuration file may lack.

    Raises:
        EngineError: there is something else in its place, which engines read otherwise or not.
    """
    if listed is None:
        return ()
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        message = f"the list of unquantized layers is {listed!r:.80}. Export the checkpoint again."
        raise EngineError(message, reason=ReasonCode.INTEGRITY_FAILED)
    return tuple(listed)


def _spell(found: _Found) -> str:
    return f"quant_algo '{found[0]}' with {'FP8' if found[2] else 'unquantized'} KV"


def _read_json(source: Source, name: str) -> Mapping[str, object]:
    with refused_as(EngineError, "Export it again.", reason=ReasonCode.INTEGRITY_FAILED):
        return read_json_object(source.path / name, most=bounds.INDEX_BYTES)
