"""The canary in every format, damaged copies of it, and what vLLM's CPU build makes of them."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness import shipped
from harness.artifacts import CalibrationStats
from harness.calibrate import calibrate
from harness.export import export
from harness.models import open_source, read_inventory
from harness.quantize import quantize
from harness.recipe import Request, load_recipe, plan

ROOT = Path(__file__).resolve().parents[2]
FORMATS = {
    "nvfp4": ("nvfp4", "none"),
    "nvfp4_kv_fp8": ("nvfp4", "fp8"),
    "nvfp4_experts_only": ("nvfp4_experts_only", "none"),
    "w4a16_nvfp4": ("w4a16_nvfp4", "none"),
    "fp8": ("fp8", "none"),
}
NUM_ITEMS = 40
SHARING = "fp8 in a vLLM that shares one expert's scale"


@dataclass(frozen=True)
class Loaded:
    """What the engine did with one model."""

    error: str | None
    report: Any
    accuracy: Mapping[str, float]
    numerics: Mapping[str, float]


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One calibration for all formats: the ranges of weights and inputs depend on none."""
    folder = tmp_path_factory.mktemp("checkpoints")
    source = open_source("canary")
    inventory = read_inventory(source)
    stats: CalibrationStats | None = None
    made: dict[str, Path] = {}
    for name, (qformat, kv_cache) in sorted(FORMATS.items(), key=lambda f: f[1][1]):
        request = Request(
            model="canary", qformat=qformat, kv_cache=kv_cache, device="cpu", calib_size=64
        )
        recipe = load_recipe(request)
        chosen = plan(recipe, inventory)
        if stats is None:
            stats = calibrate(recipe, source, inventory, chosen)
        made[name] = folder / name
        export(source, chosen, quantize(source, chosen, stats, device="cpu"), into=made[name])
    made["mixed_w4a16"] = _from_recipe("w4a16_nvfp4_fp8_attention", folder / "mixed_w4a16")
    made["mixed"] = _mixed(made["fp8"], made["nvfp4"], folder / "mixed")
    return made


def _from_recipe(qformat: str, into: Path) -> Path:
    """Make a checkpoint with a calibration of its own, for it quantizes what others do not."""
    source = open_source("canary")
    inventory = read_inventory(source)
    request = Request(model="canary", qformat=qformat, kv_cache="fp8", device="cpu", calib_size=64)
    recipe = load_recipe(request)
    chosen = plan(recipe, inventory)
    stats = calibrate(recipe, source, inventory, chosen)
    export(source, chosen, quantize(source, chosen, stats, device="cpu"), into=into)
    return into


def _mixed(fp8: Path, nvfp4: Path, folder: Path) -> Path:
    """Attention of the one and experts of the other, declared layer by layer as modelopt does."""
    tensors = {
        name: value
        for origin, is_attention in ((fp8, True), (nvfp4, False))
        for name, value in load_file(origin / "model.safetensors").items()
        if ("_attn." in name) is is_attention
    }
    shutil.copytree(nvfp4, folder, ignore=shutil.ignore_patterns("*.safetensors", "h*.json"))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    scaled = (name.rpartition(".weight_scale")[0] for name in tensors if "weight_scale" in name)
    layers = {
        module.partition(".experts.")[0] + ".experts" * (".experts." in module): {
            "quant_algo": "FP8" if "_attn." in module else "NVFP4"
        }
        for module in scaled
    }
    config = json.loads((folder / "config.json").read_bytes())
    config["quantization_config"] |= {"quant_algo": "MIXED_PRECISION", "quantized_layers": layers}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def damaged(
    checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Copies with one fault each."""
    folder = tmp_path_factory.mktemp("damaged")
    return {
        name: _changed(checkpoints[origin], folder / name, change)
        for name, (origin, change) in FAULTS.items()
    }


@pytest.fixture(scope="session")
def driven(
    vllm_python: Path,
    checkpoints: dict[str, Path],
    damaged: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Loaded]:
    """Every model loaded once, in one process."""
    folder = tmp_path_factory.mktemp("driven")
    request, response = folder / "request.json", folder / "response.json"
    models = {"bf16": shipped.canary() / "model"} | checkpoints | damaged
    models[SHARING] = checkpoints["fp8"]
    content = {
        "loads": {name: str(path) for name, path in models.items()},
        "ask": {task: _items(task) for task in ("canary_add", "canary_reverse")},
        "silent": ["strange_expert", "fp8_holes", SHARING],
        "sharing": [SHARING],
        "numerics": ["nvfp4", "w4a16_nvfp4", "fp8"],
    }
    request.write_text(json.dumps(content), encoding="utf-8")
    done = subprocess.run(
        [vllm_python, Path(__file__).with_name("drive.py"), request, response],
        env=os.environ | _ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    answers = json.loads(response.read_bytes())
    return {
        name: Loaded(a["error"], a["report"], a["accuracy"], a["numerics"])
        for name, a in answers.items()
    }


@pytest.fixture(scope="session")
def server_environment() -> Mapping[str, str]:
    return _ENVIRONMENT


_ENVIRONMENT = {
    "PYTHONPATH": str(ROOT / "harness" / "plugin"),
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "2",
}


def _items(task: str) -> list[dict[str, str]]:
    path = shipped.tasks() / "canary" / f"{task}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()[:NUM_ITEMS]
    return [json.loads(line) for line in lines]


Tensors = dict[str, Tensor]


def _changed(origin: Path, folder: Path, change: Callable[[Tensors], None]) -> Path:
    shutil.copytree(origin, folder)
    (file,) = folder.glob("*.safetensors")
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


def _without_input_scales(tensors: Tensors) -> None:
    for name in [n for n in tensors if ".experts." in n and n.endswith(".input_scale")]:
        del tensors[name]


def _swapped_global_scales(tensors: Tensors) -> None:
    """Gate and up keep each other's scale, four times one of them."""
    for gate in [n for n in tensors if n.endswith(".gate_proj.weight_scale_2")]:
        up = gate.replace(".gate_proj.", ".up_proj.")
        tensors[gate], tensors[up] = tensors[up].clone(), tensors[gate] * 4


def _strange_expert(tensors: Tensors) -> None:
    name = "model.language_model.layers.0.mlp.experts.{}.gate_proj.weight"
    tensors[name.format(16)] = tensors[name.format(15)].clone()


def _strange_scale(tensors: Tensors) -> None:
    tensors["model.language_model.layers.0.input_layernorm.weight_scale"] = torch.ones(1)


def _fp8_holes(tensors: Tensors) -> None:
    """vLLM gives both a value of 1; the first shares its place with gate's."""
    del tensors["model.language_model.layers.1.mlp.experts.3.up_proj.input_scale"]
    del tensors["model.language_model.layers.2.mlp.experts.5.down_proj.weight_scale"]


def _q_hole(tensors: Tensors) -> None:
    del tensors["model.language_model.layers.3.self_attn.q_proj.weight"]


FAULTS: dict[str, tuple[str, Callable[[Tensors], None]]] = {
    "no_input_scales": ("nvfp4", _without_input_scales),
    "swapped_scales": ("nvfp4", _swapped_global_scales),
    "strange_expert": ("nvfp4", _strange_expert),
    "strange_scale": ("nvfp4", _strange_scale),
    "fp8_holes": ("fp8", _fp8_holes),
    "q_hole": ("nvfp4", _q_hole),
}
