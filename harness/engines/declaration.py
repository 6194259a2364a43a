"""What a checkpoint says of its own quantization, read as engines read it.

The first of these places that says anything counts, and hides the others: `quantization_config` of
config.json, hf_quant_config.json, `quantization_config` of its `text_config`, `compression_config`.
Only a MIXED_PRECISION whose first place names no layers is read from hf_quant_config.json.

Three libraries' words are read. modelopt: flat (`quant_algo`, `ignore`, `kv_cache_scheme`) or
nested under `quantization` (`exclude_modules`, `kv_cache_quant_algo`). compressed-tensors: groups
of layers (compressed.py). fp8: what the makers of models with FP8 weights write (`quant_method`
fp8, `weight_block_size`, `modules_to_not_convert`). A word of the one in a place of the other is
not read by engines; it is kept in `unseen`, so that it can be told.

Source: vLLM 0.25.0 to 0.33.0, transformers_utils/config.py `get_config`, model_arch_config_
convertor.py `_normalize_quantization_config`, weight_utils.py `get_quant_config`,
quantization/modelopt.py and fp8.py `from_config`, models/deepseek_v4/quant_config.py.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from harness.artifacts import MIXED
from harness.engines.algorithms import (
    ALGORITHMS,
    COMPRESSED,
    MODELOPT,
    NATIVE_FP8,
    NATIVE_MXFP4,
    READ,
    canonical,
)
from harness.engines.compressed import Group, read_groups
from harness.errors import ReasonCode, UsageError

ALGORITHM, KV = "quant_algo", "the KV cache's algorithm"
IGNORED = "the ignore list"
CONFIG, SIDECAR = "config.json", "hf_quant_config.json"
_METHODS = {"modelopt", "modelopt_fp4", "modelopt_mxfp8", "modelopt_mixed"}
_NATIVE = {"fp8", "deepseek_v4_fp8"}
_ALONE = {"FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO", "NVFP4"}
"""Algorithms that vLLM takes from a nested declaration that names no `quant_method`."""
_TILE = [128, 128]
_KV_BITS = {8: "FP8", 4: "NVFP4"}


class LayerDeclared(NamedTuple):
    """An entry of `quantized_layers`."""

    algorithm: str
    group_size: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Declaration:
    """What one file says is quantized, and how."""

    source: str
    """The file."""
    layout: str
    """Whose words and tensors they are: `modelopt`, `compressed-tensors` or `fp8`."""
    algorithm: str | None
    """`MIXED_PRECISION` where layers differ; None where none is named."""
    experts_algorithm: str | None = None
    """Of routed experts, where it is another one than that of all other layers."""
    kv_algorithm: str | None = None
    """Of keys and values, as engines read it."""
    kv_is_static: bool = False
    """Whether their scales have to be in the files."""
    kv_is_per_head: bool = False
    """Whether there is one for each head."""
    group_size: int | None = None
    layers: Mapping[str, LayerDeclared] = field(default_factory=dict)
    """By module, where layers differ."""
    groups: tuple[Group, ...] = ()
    """Of compressed-tensors."""
    ignore: tuple[str, ...] = ()
    """Entries of the list of unquantized layers, as engines read it."""
    said: Mapping[str, object] = field(default_factory=dict)
    """What the file means, whether engines read it or not, for comparison with another file."""
    unread: str | None = None
    """The name of what harness does not read here, if there is such a thing."""
    unseen: tuple[str, ...] = ()
    """What engines do not read here, each with what comes of it."""
    malformed: tuple[str, ...] = ()
    """What has another form than engines go by, such as one name where a list must be."""

    @property
    def names_layers(self) -> bool:
        """Return whether layers have their algorithms one by one."""
        return self.algorithm == MIXED and self.layout == MODELOPT


def read_declarations(
    config: Mapping[str, object], sidecar: Mapping[str, object]
) -> tuple[Declaration, ...]:
    """Return every declaration of config.json and hf_quant_config.json, the decisive one first."""
    places = list(_places(config, sidecar))
    found = [_read(section, source, config) for source, section in places]
    names_none = found and found[0].names_layers and "quantized_layers" not in places[0][1]
    if names_none and len(found) > 1 and found[1].source == SIDECAR:
        found[0], found[1] = found[1], found[0]
    return tuple(found)


def refuse_unread(declaration: Declaration, folder: object) -> None:
    """Refuse a format that harness does not read; nothing is said about the files.

    Raises:
        UsageError: with the reason `unsupported-format`, the format's name and what is read.
    """
    if declaration.unread is None:
        return
    layout = declaration.layout
    known = f"Of {layout} it reads" if layout in READ else "It reads quant_method"
    names = ", ".join(sorted(READ.get(layout, READ)))
    message = (
        f"'{folder}' declares {declaration.unread} in {declaration.source}, which harness does not "
        f"read, so that it can say nothing about it. {known} {names}."
    )
    raise UsageError(message, reason=ReasonCode.UNSUPPORTED_FORMAT)


def contradictions(declarations: tuple[Declaration, ...], *, about: str = "") -> list[str]:
    """Return what the decisive declaration and that of the other file say differently.

    What one of them leaves out is no contradiction. `about` asks for one thing alone.
    """
    others = [one for one in declarations[1:] if one.source in (CONFIG, SIDECAR)]
    return [
        f"{what} is {_short(mine)} in {declarations[0].source} and {_short(theirs)} in "
        f"{other.source}"
        for other in others
        for what, mine in declarations[0].said.items()
        if about in ("", what)
        and None not in (mine, theirs := other.said.get(what))
        and mine != theirs
    ]


def _short(value: object) -> str:
    return f"{len(value)} entries" if isinstance(value, frozenset | dict) else f"'{value}'"


def _places(
    config: Mapping[str, object], sidecar: Mapping[str, object]
) -> Iterator[tuple[str, Mapping[str, object]]]:
    text = _mapping(config.get("text_config"))
    places = (
        (CONFIG, config.get("quantization_config")),
        (SIDECAR, sidecar or None),
        (f"text_config of {CONFIG}", text.get("quantization_config")),
        (CONFIG, config.get("compression_config")),
        (f"text_config of {CONFIG}", text.get("compression_config")),
    )
    for source, section in places:
        if section is not None:  # what is no mapping is kept under no name, for a message
            yield source, section if isinstance(section, dict) else {"": section}


def _read(section: Mapping[str, object], source: str, config: Mapping[str, object]) -> Declaration:
    method = str(section.get("quant_method") or "").lower().replace("_tensors", "-tensors")
    if method == COMPRESSED:
        return _read_compressed(section, source)
    if method in _NATIVE:
        return _read_native(section, source, config)
    if method == NATIVE_MXFP4:  # of experts alone, whatever is listed
        return Declaration(source=source, layout=method, algorithm="MXFP4")
    if method and method not in _METHODS:
        named = f"quant_method '{method}'"
        return Declaration(source=source, layout=method, algorithm=None, unread=named)
    return _read_modelopt(section, source)


def _read_modelopt(section: Mapping[str, object], source: str) -> Declaration:
    is_nested = "quantization" in section
    raw = _mapping(section.get("quantization")) if is_nested else section
    right, other = ("exclude_modules", "ignore") if is_nested else ("ignore", "exclude_modules")
    named = raw.get("quant_algo")
    algorithm = canonical(named) if named else None
    entries = _mapping(raw.get("quantized_layers"))
    layers = {name: _read_layer(_mapping(entry)) for name, entry in entries.items()}
    kv, kv_said = _modelopt_kv(raw, is_nested=is_nested)
    size = _group_size(raw)
    listed = raw.get(right, raw.get(other))
    return Declaration(
        source=source,
        layout=MODELOPT,
        algorithm=algorithm,
        kv_algorithm=kv,
        group_size=size,
        layers=layers,
        ignore=_strings(raw.get(right)),
        said={
            ALGORITHM: algorithm,
            KV: kv_said,
            "group_size": None if algorithm == MIXED else size,
            IGNORED: None if listed is None else frozenset(_strings(listed)),
            "quantized_layers": layers or None,
        },
        unread=_unread_modelopt(algorithm, layers),
        unseen=tuple(_unseen(section, source, raw, algorithm)),
        malformed=_malformed(section if is_nested else raw, raw),
    )


def _read_layer(entry: Mapping[str, object]) -> LayerDeclared:
    algorithm = canonical(entry.get("quant_algo", ""))
    fixed = ALGORITHMS[algorithm].group_size if algorithm in ALGORITHMS else None
    return LayerDeclared(algorithm, _int(entry.get("group_size")) or fixed)


def _unread_modelopt(algorithm: str | None, layers: Mapping[str, LayerDeclared]) -> str | None:
    known = READ[MODELOPT]
    if algorithm == MIXED:
        odd = sorted({layer.algorithm for layer in layers.values()} - known)
        return f"layers with quant_algo '{odd[0]}'" if odd else None
    return f"quant_algo '{algorithm}'" if algorithm and algorithm not in known else None


def _unseen(
    section: Mapping[str, object], source: str, raw: Mapping[str, object], algorithm: str | None
) -> Iterator[str]:
    """Yield the words that stand where engines do not read them."""
    is_nested = "quantization" in section
    maker = str(_mapping(section.get("producer")).get("name"))
    if is_nested and maker == MODELOPT:
        if algorithm not in {None, *_ALONE}:
            yield f"vLLM stops at a nested quant_algo {algorithm}: say it flat in {CONFIG}"
    elif not section.get("quant_method"):
        lacking = f"{source} names no quant_method" + (" and no producer" if is_nested else "")
        yield f"{lacking}: vLLM takes the model for unquantized"
    scheme = raw.get("kv_cache_scheme")
    if scheme and not isinstance(scheme, Mapping) and canonical(scheme) == "NVFP4":
        yield f"kv_cache_scheme is a word in {source}: vLLM loads no scales of keys and values"
    elif scheme and not isinstance(scheme, Mapping):
        yield f"kv_cache_scheme is the word {scheme!r:.20} in {source}: keys and values stay as is"
    if not is_nested and raw.get("kv_cache_quant_algo"):
        yield f"kv_cache_quant_algo stands flat in {source}: keys and values stay as they are"
    right, other = ("exclude_modules", "ignore") if is_nested else ("ignore", "exclude_modules")
    if right not in raw and raw.get(other):
        yield f"{other} stands where engines read {right}, in {source}: nothing is excluded by it"


def _modelopt_kv(raw: Mapping[str, object], *, is_nested: bool) -> tuple[str | None, str | None]:
    """Return the algorithm of keys and values as engines read it, and as it is meant."""
    word, scheme = raw.get("kv_cache_quant_algo"), raw.get("kv_cache_scheme")
    read: object
    said: object
    if isinstance(scheme, Mapping):
        bits = _int(scheme.get("num_bits")) if scheme.get("type") == "float" else None
        said = _KV_BITS.get(bits or 0, "UNKNOWN")
        read = said if said != "NVFP4" else None  # a flat declaration is read for 8 bits alone
    else:
        said = scheme or word
        # vLLM takes the type of its cache from this word, and loads no scales (torch_utils.py,
        # get_kv_cache_quant_algo_string; modelopt.py, from_config).
        read = "NVFP4" if scheme and canonical(scheme) == "NVFP4" else None
    if is_nested:
        read = said = word or said
    names = (canonical(name) if name else None for name in (read, said))
    return next(names), next(names)


def _read_compressed(section: Mapping[str, object], source: str) -> Declaration:
    groups = read_groups(section)
    algorithms = {group.algorithm for group in groups}
    algorithm = algorithms.pop() if len(algorithms) == 1 else (MIXED if algorithms else None)
    scheme = _mapping(section.get("kv_cache_scheme"))
    is_fp8 = (scheme.get("type"), scheme.get("num_bits")) == ("float", 8)
    odd = next((group for group in groups if group.algorithm is None), None)
    return Declaration(
        source=source,
        layout=COMPRESSED,
        algorithm=algorithm,
        kv_algorithm=("FP8" if is_fp8 else "UNKNOWN") if scheme else None,
        kv_is_static=bool(scheme) and not scheme.get("dynamic"),
        kv_is_per_head=scheme.get("strategy") == "attn_head",
        group_size=_group_size(section),
        groups=groups,
        ignore=_strings(section.get("ignore")),
        said={ALGORITHM: algorithm},
        unread=f"{odd.kind} ({COMPRESSED}, {odd.name})" if odd else None,
        malformed=_malformed(section, section),
    )


def _read_native(
    section: Mapping[str, object], source: str, config: Mapping[str, object]
) -> Declaration:
    tile, layers = section.get("weight_block_size"), _mapping(section.get("quantized_layers"))
    is_static = str(section.get("activation_scheme")) == "static"
    experts, unread = _experts_of(section, config)
    if tile not in (None, _TILE):
        unread = f"FP8 in blocks of {tile}"
    plain = "FP8" if is_static else "FP8_PER_TENSOR_DYNAMIC"
    return Declaration(
        source=source,
        layout=NATIVE_FP8,
        algorithm="FP8_PER_BLOCK" if tile else plain,
        experts_algorithm=experts,
        layers={name: _read_layer(_mapping(entry)) for name, entry in layers.items()},
        ignore=_strings(section.get("ignored_layers") or section.get("modules_to_not_convert")),
        said={
            ALGORITHM: canonical(named) if (named := section.get("quant_algo")) else None,
            IGNORED: frozenset(_strings(section["ignore"])) if "ignore" in section else None,
        },
        unread=unread,
        malformed=_malformed(section, section),
    )


def _experts_of(
    section: Mapping[str, object], config: Mapping[str, object]
) -> tuple[str | None, str | None]:
    """Return the algorithm of DeepSeek V4's experts, and the name of what is not read of it."""
    if section.get("store_dtype"):
        return None, f"weights stored as {section['store_dtype']}"
    is_v4 = str(config.get("model_type")).startswith("deepseek_v4")
    if config.get("expert_dtype", "fp4" if is_v4 else "fp8") == "fp8":
        return None, None
    algorithm = canonical(section.get("moe_quant_algo") or "MXFP4")
    is_read = algorithm in READ[NATIVE_FP8]
    return algorithm, None if is_read else f"experts in {algorithm} (quant_method fp8)"


def _malformed(section: Mapping[str, object], raw: Mapping[str, object]) -> tuple[str, ...]:
    if "" in section:
        return (f"the declaration is no mapping: {section['']!r:.80}",)
    lists = ("ignore", "exclude_modules", "modules_to_not_convert", "ignored_layers")
    mappings = ("config_groups", "quantized_layers")
    faults = [f"{key} is no list of names" for key in lists if not _is_names(raw.get(key))]
    faults += [f"{k} is no mapping" for k in mappings if not isinstance(raw.get(k), dict | None)]
    if not isinstance(raw.get("kv_cache_scheme"), dict | str | None):
        faults.append("kv_cache_scheme is no mapping")
    if "quantization" in section and not isinstance(section["quantization"], dict):
        faults.append("quantization is no mapping")
    return tuple(faults)


def _group_size(raw: Mapping[str, object]) -> int | None:
    """Return the block size, which the flat spelling hides in its first group of weights."""
    groups = _mapping(raw.get("config_groups"))
    weights = [_mapping(_mapping(group).get("weights")) for group in groups.values()]
    sizes = [raw.get("group_size"), *(w.get("group_size") for w in weights)]
    return next((size for size in map(_int, sizes) if size is not None), None)


def _is_names(value: object) -> bool:
    is_list = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return value is None or is_list


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _strings(value: object) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, list) else ()


def _int(value: object) -> int | None:
    return value if isinstance(value, int) else None
