"""Build the checkpoint that a cut configuration declares, with tiny tensors."""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zlib import crc32

from harness import shipped
from tests.published import declared, tensors
from tests.published.declared import Declared, Rule
from tests.published.families import (
    EXPERTS,
    VOCABULARY,
    WIDE,
    WIDTH,
    Part,
    decoder_of,
    names_of,
    nested_key,
    num_layers,
)
from tests.published.modules import parts_of
from tests.published.tensors import Layout, Leaves, Linear, Tensor

Config = Mapping[str, Any]

SIDECARS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
)
_SIZES = {
    "hidden_size": WIDTH,
    "intermediate_size": WIDE,
    "moe_intermediate_size": WIDE,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 8192,
    "num_experts_per_tok": 2,
}
_FUSED = (
    ("q_proj", "k_proj", "v_proj"),
    ("gate_proj", "up_proj"),
    ("w1", "w3"),
    ("in_proj_qkv", "in_proj_z"),
    ("in_proj_b", "in_proj_a"),
    ("q_a_proj", "kv_a_proj_with_mqa"),
    ("wq_a", "wkv"),
)
_STACKED = {"gpt_oss", "llama4", "llama4_text"}
_STACKS = {"gate_up_proj": (2 * WIDE, WIDTH), "down_proj": (WIDTH, WIDE)}


@dataclass(frozen=True)
class Built:
    """A checkpoint before it is written."""

    config: dict[str, Any]
    sidecar: dict[str, Any]
    declared: Declared
    leaves: dict[str, Leaves]
    """By module; a module that stacks experts has its tensors here too."""
    quantized: tuple[str, ...]
    """Modules that are stored in fewer bits."""
    routers: tuple[str, ...]

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {
            f"{module}.{leaf}" if module else leaf: tensor
            for module, leaves in self.leaves.items()
            for leaf, tensor in leaves.items()
        }


def build(config: Config, sidecar: Config) -> Built:
    """Return the checkpoint of a cut configuration.

    Raises:
        ValueError: it declares no quantization.
    """
    found = _declared(config, sidecar)
    built = _built(config, found, declared.layout_of(found, config))
    if found.kv == "FP8":
        _add_kv_scales(built.leaves, found, num_layers(decoder_of(config)))
    return replace(built, sidecar=dict(sidecar))


def unquantized(config: Config, sidecar: Config) -> Built:
    """Return the model that a checkpoint was made from, with which the gate compares it.

    Raises:
        ValueError: the configuration declares no quantization.
    """
    built = _built(config, _declared(config, sidecar), lambda _name, _head: None)
    for place in (built.config, built.config.get("text_config") or {}):
        place.pop("quantization_config", None)
        place.pop("compression_config", None)
    return built


def _declared(config: Config, sidecar: Config) -> Declared:
    found = declared.read(config, sidecar)
    if found is None:
        message = "no quantization is declared"
        raise ValueError(message)
    return found


def _built(config: Config, found: Declared, rule: Rule) -> Built:
    names = names_of(config, found.names)
    parts = [*parts_of(config, names)]
    parts += _further(found, {part.name for part in parts})
    leaves: dict[str, Leaves] = {}
    quantized: list[str] = []
    for part in parts:
        layout = rule(part.name, part.name == names.head) if part.is_linear else None
        leaves.setdefault(part.name, {}).update(_written(part, layout))
        quantized += [part.name] if layout is not None else []
    is_stacked = decoder_of(config).get("model_type") in _STACKED
    if is_stacked and found.section.get("quant_method") != "compressed-tensors":  # which unstacks
        leaves, quantized = _stack(leaves, quantized, rule)
    routers = tuple(p.name for p in parts if p.name.endswith((".gate", ".router", "router.proj")))
    return Built(_sized(config), {}, found, leaves, tuple(quantized), routers)


def _sized(config: Config) -> dict[str, Any]:
    nested = nested_key(config)
    return {**config, **(_SIZES if nested is None else {nested: _sized(config[nested])})}


def _seed(name: str) -> int:
    return crc32(name.encode())


def _written(part: Part, layout: Layout | None) -> Leaves:
    if layout is None:
        is_small = len(part.shape) == 1 and part.leaf != "weight"
        make = tensors.f32 if is_small else tensors.bf16
        return {part.leaf: make(part.shape, _seed(f"{part.name}.{part.leaf}"))}
    out, width = part.shape
    return layout(Linear(out, width, _seed(part.name), _seed(_whole(part.name))))


def _whole(name: str) -> str:
    """Return one name for all layers that engines fuse."""
    parent, _, last = name.rpartition(".")
    return next((f"{parent}.{group[0]}" for group in _FUSED if last in group), name)


def _further(found: Declared, there: set[str]) -> Iterator[Part]:
    """Return the layers that the declaration names and the family is not known to have."""
    parents = {name.rsplit(".", depth)[0] for name in there for depth in range(1, 5)}
    for name in found.section.get("quantized_layers") or ():
        is_one = "*" not in name and name.rpartition(".")[2] != "experts"
        if is_one and name not in there and name not in parents:
            yield Part(name, (WIDTH, WIDTH))


def _add_kv_scales(leaves: dict[str, Leaves], found: Declared, layers: int) -> None:
    """Put a scale for keys and one for values beside each attention layer of the decoder."""
    is_compressed = found.section.get("quant_method") == "compressed-tensors"
    scheme = found.section.get("kv_cache_scheme")
    by_head = isinstance(scheme, dict) and scheme.get("strategy") == "attn_head"
    attentions = {
        name.rpartition(".")[0]
        for name in leaves
        if name.rpartition(".")[2] in {"k_proj", "kv_b_proj"} and not _is_apart(name, layers)
    }
    for path in sorted(attentions):
        for which in "kv":
            module = path if is_compressed else f"{path}.{which}_proj"
            scale = tensors.scalar(0.02 + 0.001 * (_seed(module) % 7))
            if by_head:
                scale = tensors.f32((2, 1, 1), _seed(module), center=0.02)
            leaves.setdefault(module, {})[f"{which}_scale"] = scale


def _is_apart(name: str, layers: int) -> bool:
    """Return whether a layer is of a tower or of the draft head, which keep no keys in FP8."""
    parts = name.split(".")
    is_last = "layers" in parts and int(parts[parts.index("layers") + 1]) >= layers
    return is_last or bool({"mtp", "vision_tower", "vision_model", "visual"} & {*parts})


def _stack(
    leaves: Mapping[str, Leaves], quantized: list[str], rule: Rule
) -> tuple[dict[str, Leaves], list[str]]:
    """Put all experts of a layer into one tensor a projection, as gpt-oss and Llama 4 have them."""
    kept = {name: held for name, held in leaves.items() if ".experts." not in name}
    kept_names = [name for name in quantized if ".experts." not in name]
    paths = {name.partition(".experts.")[0] + ".experts" for name in leaves if ".experts." in name}
    for path in sorted(paths):
        kept[path] = {}
        layout = rule(path, False)  # noqa: FBT003 -- a rule's two questions
        for name, (out, width) in _STACKS.items():
            kept[path] |= _stacked(f"{path}.{name}", (out, width), layout)
        kept_names += [path] if layout is not None else []
    return kept, kept_names


def _stacked(path: str, shape: tuple[int, int], layout: Layout | None) -> Mapping[str, Tensor]:
    name, (out, width) = path.rpartition(".")[2], shape
    if layout is None:
        return {name: tensors.bf16((EXPERTS, width, out), _seed(path))}
    if layout is tensors.mxfp4_stacked:
        return tensors.stacked_mxfp4(name, EXPERTS, shape, _seed(path))
    layers = [layout(Linear(out, width, _seed(f"{path}{e}"), _seed(path))) for e in range(EXPERTS)]
    return tensors.stacked(name, layers)


def write(built: Built, folder: Path) -> Path:
    """Write a checkpoint with the canary's tokenizer, whose ids fit the vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(built.config), encoding="utf-8")
    if built.sidecar:
        text = json.dumps(built.sidecar)
        (folder / "hf_quant_config.json").write_text(text, encoding="utf-8")
    tensors.save(built.tensors, folder / "model.safetensors")
    for name in SIDECARS:
        shutil.copyfile(shipped.canary() / "model" / name, folder / name)
    return folder
