"""Write a model of random weights, one tensor at a time, and token ids to calibrate it with."""

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig
from transformers.initialization import no_init_weights

from scripts.bench.shapes import CANARY

_STD = 0.02
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
_PROCESSOR = ("preprocessor_config.json",)
_SHARD_BYTES = 4 << 30


def write_model(folder: Path, config: dict[str, Any], *, device: str) -> int:
    """Write configuration and weights in bfloat16; return the number of parameters.

    Tensors of one shape share their values, drawn once: what is timed does not depend on them. The
    tokenizer is the canary's, so that an engine loads the folder.
    """
    folder.mkdir(parents=True)
    for name in (*_TOKENIZER, *(_PROCESSOR if "vision_config" in config else ())):
        shutil.copy(CANARY / name, folder)
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    weight_map: dict[str, str] = {}
    num_parameters = 0
    for number, shard in enumerate(_shards(_shapes(folder)), start=1):
        name = f"model-{number:05}.safetensors"
        tensors = {key: _drawn(key, shape, device) for key, shape in shard.items()}
        save_file(tensors, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, name)
        num_parameters += sum(tensor.numel() for tensor in tensors.values())
    index = {"metadata": {"total_size": 2 * num_parameters}, "weight_map": weight_map}
    text = json.dumps(index)
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    return num_parameters


def write_ids(file: Path, *, vocabulary: int, samples: int, length: int) -> None:
    """Write samples of random token ids, a JSON line each."""
    ids_ST = torch.randint(
        0, vocabulary, (samples, length), generator=torch.Generator().manual_seed(0)
    )
    lines = (json.dumps({"input_ids": row}) for row in ids_ST.tolist())
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    config = AutoConfig.from_pretrained(folder)
    kind = getattr(transformers, config.architectures[0])
    with torch.device("meta"), no_init_weights():
        model = kind._from_config(config, dtype=torch.bfloat16)  # noqa: SLF001  # of any kind of model
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _shards(shapes: dict[str, tuple[int, ...]]) -> Iterator[dict[str, tuple[int, ...]]]:
    shard: dict[str, tuple[int, ...]] = {}
    num_bytes = 0
    for name, shape in shapes.items():
        shard[name] = shape
        num_bytes += 2 * math.prod(shape)
        if num_bytes >= _SHARD_BYTES:
            yield shard
            shard, num_bytes = {}, 0
    if shard:
        yield shard


_drawn_before: dict[tuple[int, ...], Tensor] = {}


def _drawn(name: str, shape: tuple[int, ...], device: str) -> Tensor:
    del name
    if shape not in _drawn_before:
        seed = torch.Generator(device).manual_seed(len(_drawn_before))
        drawn = torch.randn(shape, generator=seed, device=device, dtype=torch.float32)
        _drawn_before[shape] = drawn.mul_(_STD).bfloat16().cpu()
    return _drawn_before[shape].clone()
