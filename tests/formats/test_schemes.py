"""Schemes, names and what importing the formats costs."""

import subprocess
import sys

import pytest

from harness.errors import RecipeError
from harness.formats import get_format, get_scheme, known_formats, scheme_of


@pytest.mark.parametrize(
    ("weights", "inputs", "scheme"),
    [
        ("nvfp4", "nvfp4", "NVFP4"),
        ("nvfp4", None, "W4A16_NVFP4"),
        ("fp8", "fp8", "FP8"),
        ("fp8_block", None, "FP8_PB_WO"),
        ("fp8_channel", "fp8_token", "FP8_PER_CHANNEL_PER_TOKEN"),
        ("mxfp8", "mxfp8", "MXFP8"),
        ("mxfp4", None, "MXFP4"),
    ],
)
def test_a_pair_of_formats_has_one_scheme(weights: str, inputs: str | None, scheme: str) -> None:
    assert scheme_of(weights, inputs) == scheme
    assert get_scheme(scheme).weight_format == weights
    assert get_scheme(scheme).input_format == inputs


def test_a_pair_that_no_engine_loads_is_refused() -> None:
    with pytest.raises(RecipeError, match="no engine loads 'nvfp4' weights with 'fp8'"):
        scheme_of("nvfp4", "fp8")


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"unknown format 'int3'\. Known: fp8, nvfp4"):
        get_format("int3")
    with pytest.raises(RecipeError, match="unknown scheme 'INT3'"):
        get_scheme("INT3")


def test_every_known_format_has_its_own_name() -> None:
    assert [get_format(name).name for name in known_formats()] == list(known_formats())


def test_config_groups_are_those_that_engines_read() -> None:
    four = {"dynamic": False, "num_bits": 4, "type": "float", "group_size": 16}
    eight = {"dynamic": False, "num_bits": 8, "type": "float"}
    assert get_scheme("NVFP4").config_group() == {
        "input_activations": four,
        "weights": four,
        "targets": ["Linear"],
    }
    assert get_scheme("W4A16_NVFP4").config_group() == {"weights": four, "targets": ["Linear"]}
    assert get_scheme("FP8").config_group() == {
        "input_activations": eight,
        "weights": eight,
        "targets": ["Linear"],
    }


def test_importing_the_formats_imports_no_torch() -> None:
    code = "import sys, harness.formats; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
