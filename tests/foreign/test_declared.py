"""What is declared, read from configuration files of other exporters."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest

from harness.artifacts import EngineSpec
from harness.engines import read_declared, read_demands
from harness.errors import EngineError, ReasonCode, UsageError
from harness.models import open_source
from harness.serve import serve

KV_FP8 = {"type": "float", "num_bits": 8, "strategy": "tensor", "dynamic": False}


class Compressed(Protocol):
    folder: Path

    def configure(self, edit: Callable[[dict[str, Any]], None]) -> Path: ...


@pytest.mark.parametrize(
    ("preset", "scheme", "parts"),
    [
        ("NVFP4", "NVFP4", ("weights:nvfp4", "inputs:nvfp4")),
        ("NVFP4A16", "W4A16_NVFP4", ("weights:nvfp4",)),
        ("FP8", "FP8", ("weights:fp8", "inputs:fp8")),
        ("FP8_DYNAMIC", "FP8_PER_CHANNEL_PER_TOKEN", ("weights:fp8", "inputs:fp8")),
        ("FP8_BLOCK", "FP8_PER_BLOCK", ("weights:fp8", "inputs:fp8")),
    ],
)
def test_a_preset_of_llmcompressor_has_a_scheme(
    packed_by_library: dict[str, Path], preset: str, scheme: str, parts: tuple[str, ...]
) -> None:
    source = open_source(str(packed_by_library[preset]))
    demands, declared = read_demands(source), read_declared(source)
    assert (demands.scheme, demands.declared) == (scheme, parts)
    assert declared is not None
    assert "re:^mtp.*" in declared.ignore
    assert demands.layout == "compressed-tensors"


def test_keys_and_values_are_declared_with_their_scales(
    compressed: Callable[..., Compressed],
) -> None:
    folder = compressed().configure(lambda said: said.update(kv_cache_scheme=KV_FP8))
    demands = read_demands(open_source(str(folder)))
    assert (demands.kv_fp8, demands.kv_calibrated) == (True, True)
    assert demands.declared[-1] == "kv:fp8"


def test_an_unknown_arithmetic_is_refused_by_name(compressed: Callable[..., Compressed]) -> None:
    def edit(said: dict[str, Any]) -> None:
        said["config_groups"]["group_0"]["weights"]["type"] = "int"

    with pytest.raises(UsageError, match="4-bit integers in groups of 16") as caught:
        read_declared(open_source(str(compressed().configure(edit))))
    assert caught.value.reason is ReasonCode.UNSUPPORTED_FORMAT


def test_the_reference_engine_names_the_one_that_serves_it(
    packed_by_library: dict[str, Path],
) -> None:
    engine = EngineSpec(name="reference", numerics="declared", device="cpu", dtype="float32")
    with (
        pytest.raises(EngineError, match="Use --engine vllm"),
        serve(engine, packed_by_library["NVFP4"]),
    ):
        pass


def test_an_unquantized_model_demands_nothing(tiny_qwen3: Path) -> None:
    source = open_source(str(tiny_qwen3))
    assert read_declared(source) is None
    assert read_demands(source).declared == ()
