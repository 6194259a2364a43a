"""What is declared, read from configuration files of other exporters."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest

from harness.artifacts import EngineSpec
from harness.errors import EngineError, ReasonCode
from harness.models import open_source
from harness.serve import serve
from harness.serve.declared import producer_of, read_declared

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
    declared = read_declared(source)
    assert declared.scheme is not None
    assert (declared.scheme.name, declared.parts()) == (scheme, parts)
    assert "re:^mtp.*" in declared.ignore
    assert declared.layout == "compressed-tensors"
    assert producer_of(source) == "llmcompressor (compressed-tensors 0.17.0)"


def test_keys_and_values_are_declared_with_their_scales(
    compressed: Callable[..., Compressed],
) -> None:
    folder = compressed().configure(lambda said: said.update(kv_cache_scheme=KV_FP8))
    declared = read_declared(open_source(str(folder)))
    assert (declared.kv_fp8, declared.kv_calibrated) == (True, True)
    assert declared.parts()[-1] == "kv:fp8"


def test_an_unknown_arithmetic_is_refused_by_name(compressed: Callable[..., Compressed]) -> None:
    def edit(said: dict[str, Any]) -> None:
        said["config_groups"]["group_0"]["weights"]["type"] = "int"

    with pytest.raises(EngineError, match="no engine here is known to load") as caught:
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


def test_an_unquantized_model_has_no_producer(tiny_qwen3: Path) -> None:
    source = open_source(str(tiny_qwen3))
    assert producer_of(source) is None
    assert read_declared(source).parts() == ()
