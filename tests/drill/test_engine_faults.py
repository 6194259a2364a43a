"""Faults of engines strike the engine that serves, inside their context alone."""

import os
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path

import pytest

from harness.drill.catalogue import find_fault
from harness.drill.fault import RunFault
from harness.errors import EngineError, ReasonCode
from harness.models import open_source, read_inventory
from harness.serve import scales
from harness.serve.computable import read_computable
from harness.serve.vllm import server


@pytest.fixture
def fault() -> RunFault:
    found = find_fault("engine-shares-one-expert-scale")
    assert isinstance(found, RunFault)
    return found


def distinct(checkpoint: Path) -> int:
    """Return how many scales the experts' down projections of one layer compute with."""
    source = open_source(str(checkpoint))
    inventory = read_inventory(source)
    layers = scales.quantized_linears(source, inventory, read_computable(source))
    weights = scales.read_scales(source, layers).weights
    of_layer = [v for n, v in weights.items() if ".layers.0." in n and n.endswith(".down_proj")]
    return len({float(value) for value in of_layer if value is not None})


def test_the_reference_engine_refuses_to_compute_with_one_experts_scale(
    correct: Mapping[str, Path], fault: RunFault
) -> None:
    with fault.during(), pytest.raises(EngineError, match="of 192 scales of experts") as caught:
        distinct(correct["fp8"])
    assert caught.value.reason is ReasonCode.SCALE_MISMATCH
    assert distinct(correct["fp8"]) > 2


def test_vllm_gets_the_fault_as_a_plugin_beside_harness_own(fault: RunFault) -> None:
    own = str(vars(server)["PLUGIN"])
    with fault.during():
        folders = str(vars(server)["PLUGIN"]).split(os.pathsep)
    assert folders[1:] == [own] == [str(vars(server)["PLUGIN"])]
    (distribution,) = distributions(path=[folders[0]])
    (entry,) = distribution.entry_points
    assert (entry.group, entry.value) == ("vllm.general_plugins", "harness_drill_fault:register")
