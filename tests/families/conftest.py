"""Tiny models of families that are hard in their own way, quantized as a user types it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor

from scripts.families.make import make
from tests.families.plain import decode_nvfp4
from tests.stored import read_tensors
from tests.typed import typed


@dataclass(frozen=True)
class Quantized:
    """A checkpoint in NVFP4 beside the model that it was made from."""

    source: Path
    checkpoint: Path
    tensors: Mapping[str, Tensor]
    model: transformers.PreTrainedModel
    """As transformers loads the source, float32."""

    def layers(self) -> set[str]:
        """The quantized layers' names."""
        return {n.removesuffix(".weight_scale") for n in self.tensors if n.endswith("weight_scale")}

    def weight(self, layer: str) -> Tensor:
        """What a layer's codes and scales mean, [out, in]."""
        suffixes = ("weight", "weight_scale", "weight_scale_2")
        return decode_nvfp4(*(self.tensors[f"{layer}.{suffix}"] for suffix in suffixes))

    def parameter(self, name: str) -> Tensor:
        return self.model.get_parameter(name).detach()

    def ignored(self) -> list[str]:
        config = json.loads((self.checkpoint / "config.json").read_bytes())
        entries: list[str] = config["quantization_config"]["ignore"]
        return entries


Make = Callable[[str], Quantized]


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a layout of a family, such as `gpt_oss` or `gpt_oss-mxfp4`."""
    folder = tmp_path_factory.mktemp("families")

    @cache
    def made(name: str) -> Path:
        found = {path.name: path for path in make(name.partition("-")[0], folder)}
        return found[name]

    return made


@pytest.fixture(scope="session")
def quantized(families: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Make:
    folder = tmp_path_factory.mktemp("quantized")
    samples = torch.randint(0, 256, (16, 32), generator=torch.Generator().manual_seed(0))
    data = folder / "samples.jsonl"
    data.write_text("\n".join(json.dumps({"input_ids": row}) for row in samples.tolist()))

    @cache
    def made(name: str) -> Quantized:
        source, run = families(name), folder / name
        options = ("--calib-data", data, "--calib-size", 16, "--calib-seq", 32, "--device", "cpu")
        done = typed("quantize", "--model", source, "--qformat", "nvfp4", "--out", run, *options)
        assert done.code == 0, done.err
        checkpoint = run / "checkpoint"
        config = json.loads((source / "config.json").read_bytes())
        model_class = getattr(transformers, config["architectures"][0])
        model = model_class.from_pretrained(source, dtype=torch.float32)
        return Quantized(source, checkpoint, read_tensors(checkpoint), model)

    return made
