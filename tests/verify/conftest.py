"""A small checkpoint in the layout of Qwen3.5-MoE, made of plain tensors, in three schemes."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.artifacts import CalibrationStats
from harness.export import export
from harness.models import TensorReader, open_source, read_inventory
from harness.quantize import quantize
from harness.recipe import Request, load_recipe, plan

WIDTH, NUM_EXPERTS = 32, 4
DECODER = "model.language_model.layers"
LINEARS = (
    *(f"{DECODER}.0.linear_attn.{p}" for p in ("in_proj_qkv", "in_proj_z", "out_proj")),
    *(f"{DECODER}.1.self_attn.{p}" for p in ("q_proj", "k_proj", "v_proj", "o_proj")),
    *(
        f"{DECODER}.{layer}.mlp.{block}.{p}"
        for layer in (0, 1)
        for block in (*(f"experts.{e}" for e in range(NUM_EXPERTS)), "shared_expert")
        for p in ("gate_proj", "up_proj", "down_proj")
    ),
)
IGNORED = (
    "lm_head",
    "model.visual*",
    "mtp*",
    *(f"{DECODER}.{layer}.mlp.gate" for layer in (0, 1)),
    *(f"{DECODER}.{layer}.mlp.shared_expert_gate" for layer in (0, 1)),
    f"{DECODER}.0.linear_attn.in_proj_a",
    f"{DECODER}.0.linear_attn.in_proj_b",
)
PLAIN = {
    "lm_head.weight": (64, WIDTH),
    "model.language_model.embed_tokens.weight": (64, WIDTH),
    "model.language_model.norm.weight": (WIDTH,),
    "model.visual.blocks.0.mlp.linear_fc1.weight": (WIDTH, WIDTH),
    "model.visual.pos_embed.weight": (16, WIDTH),
    "mtp.fc.weight": (WIDTH, 2 * WIDTH),
    "mtp.layers.0.mlp.experts.gate_up_proj": (NUM_EXPERTS, 2 * WIDTH, WIDTH),
    "mtp.layers.0.self_attn.k_proj.weight": (WIDTH, WIDTH),
    "mtp.layers.0.self_attn.v_proj.weight": (WIDTH, WIDTH),
    f"{DECODER}.0.linear_attn.in_proj_a.weight": (4, WIDTH),
    f"{DECODER}.0.linear_attn.in_proj_b.weight": (4, WIDTH),
    f"{DECODER}.0.linear_attn.conv1d.weight": (WIDTH, 1, 4),
    f"{DECODER}.0.linear_attn.A_log": (4,),
    f"{DECODER}.1.self_attn.q_norm.weight": (8,),
    **{f"{DECODER}.{n}.mlp.gate.weight": (NUM_EXPERTS, WIDTH) for n in (0, 1)},
    **{f"{DECODER}.{n}.mlp.shared_expert_gate.weight": (1, WIDTH) for n in (0, 1)},
}
Tensors = dict[str, torch.Tensor]


def quantized_linear(name: str, scheme: str, seed: torch.Generator) -> Tensors:
    scalar = torch.tensor(0.01)
    if scheme == "FP8":
        weight = torch.randn(WIDTH, WIDTH, generator=seed).to(torch.float8_e4m3fn)
        stored = {"weight": weight, "weight_scale": scalar.clone(), "input_scale": scalar.clone()}
    else:
        codes = torch.randint(0, 256, (WIDTH, WIDTH // 2), dtype=torch.uint8, generator=seed)
        blocks = torch.rand(WIDTH, WIDTH // 16, generator=seed) + 0.5
        stored = {
            "weight": codes,
            "weight_scale": blocks.to(torch.float8_e4m3fn),
            "weight_scale_2": scalar.clone(),
        }
        if scheme == "NVFP4":
            stored["input_scale"] = scalar.clone()
    return {f"{name}.{leaf}": tensor for leaf, tensor in stored.items()}


def make_tensors(scheme: str) -> Tensors:
    seed = torch.Generator().manual_seed(1)
    tensors: Tensors = {}
    for name in LINEARS:
        tensors |= quantized_linear(name, scheme, seed)
    for name, shape in PLAIN.items():
        tensors[name] = torch.randn(shape, generator=seed).bfloat16()
    return tensors


def write_configs(into: Path, scheme: str, *, kv_algo: str | None = None) -> None:
    group_size = {} if scheme == "FP8" else {"group_size": 16}
    nested = {
        "quant_algo": scheme,
        "kv_cache_quant_algo": kv_algo,
        "exclude_modules": list(IGNORED),
        **group_size,
    }
    flat: dict[str, object] = {
        "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "float", **group_size}}},
        "ignore": list(IGNORED),
        "quant_algo": scheme,
        "quant_method": "modelopt",
    }
    if kv_algo:
        flat["kv_cache_scheme"] = {"dynamic": False, "num_bits": 8, "type": "float"}
    config = {"text_config": {"num_experts": NUM_EXPERTS}, "quantization_config": flat}
    (into / "config.json").write_text(json.dumps(config))
    (into / "hf_quant_config.json").write_text(json.dumps({"quantization": nested}))


def write_shards(into: Path, tensors: Tensors) -> None:
    """Two shards and an index."""
    names = sorted(tensors)
    halves = {"model-00001-of-00002.safetensors": names[::2]}
    halves["model-00002-of-00002.safetensors"] = names[1::2]
    for shard, held in halves.items():
        save_file({n: tensors[n].contiguous() for n in held}, into / shard)
    index = {"weight_map": {n: shard for shard, held in halves.items() for n in held}}
    (into / "model.safetensors.index.json").write_text(json.dumps(index))


def write_sidecars(into: Path) -> None:
    for name in ("tokenizer.json", "generation_config.json"):
        (into / name).write_text("{}")
    (into / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))


def write_manifest(into: Path) -> None:
    files = [p for p in into.iterdir() if p.name != "harness.json"]
    hashes = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    (into / "harness.json").write_text(json.dumps({"sha256": hashes}))


class Checkpoint:
    """A checkpoint that a test can damage."""

    def __init__(self, folder: Path, scheme: str, kv_algo: str | None = None) -> None:
        self.folder = folder
        folder.mkdir()
        write_shards(folder, make_tensors(scheme))
        write_configs(folder, scheme, kv_algo=kv_algo)
        write_sidecars(folder)

    def change(self, edit: Callable[[Tensors], None]) -> Path:
        """Rewrite all shards and the index after `edit`."""
        tensors: Tensors = {}
        for shard in self.folder.glob("*.safetensors"):
            tensors |= load_file(shard)
        edit(tensors)
        write_shards(self.folder, tensors)
        return self.folder

    def configure(self, edit: Callable[[dict[str, object]], None], *files: str) -> Path:
        """Edit the quantization section of `files`, by default of both."""
        for file in files or ("config.json", "hf_quant_config.json"):
            path = self.folder / file
            content = json.loads(path.read_text())
            edit(content["quantization_config" if file == "config.json" else "quantization"])
            path.write_text(json.dumps(content))
        return self.folder

    def seal(self) -> Path:
        """Write the manifest, as an export does last."""
        write_manifest(self.folder)
        return self.folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., Checkpoint]:
    return lambda scheme="NVFP4", kv_algo=None: Checkpoint(
        tmp_path / f"ckpt-{scheme}", scheme, kv_algo
    )


@pytest.fixture
def linears() -> tuple[str, ...]:
    return LINEARS


def _export(model: Path, qformat: str, kv_cache: str, into: Path) -> Path:
    """Export with the weights' true ranges and an invented one for every input."""
    source = open_source(str(model))
    inventory = read_inventory(source)
    request = Request(model=str(model), qformat=qformat, kv_cache=kv_cache, device="cpu")
    chosen = plan(load_recipe(request), inventory)
    with TensorReader(source) as reader:
        weight_amax = {
            linear.name: reader.matrix(linear.source).abs().max().item()
            for linear in inventory.linears
        }
    inputs = {linear.input_quantizer for linear in inventory.linears}
    inputs |= {q for a in inventory.attentions for q in (a.k_quantizer, a.v_quantizer)}
    stats = CalibrationStats(
        weight_amax=weight_amax,
        input_amax=dict.fromkeys(inputs, 2.0),
        coverage=(),
        num_samples=8,
        num_tokens=512,
    )
    export(source, chosen, quantize(source, chosen, stats), into=into)
    return into


@pytest.fixture(scope="session")
def export_model() -> Callable[[Path, str, str, Path], Path]:
    return _export


@pytest.fixture(scope="session")
def good_exports(
    tiny_qwen3_5_moe: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """One good checkpoint a format, beside which lies its source; never to be changed."""
    root = tmp_path_factory.mktemp("exports")
    return {
        qformat: _export(tiny_qwen3_5_moe, qformat, "fp8", root / qformat)
        for qformat in ("nvfp4", "fp8")
    }
