"""Faults of engines: the checkpoint is right, and the engine computes with something else.

In the reference engine a function is exchanged, as in making.py; into a vLLM the fault goes as a
plugin of its own beside harness's (in_vllm/).
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from harness.drill.fault import VLLM, Kind, RunFault
from harness.drill.making import exchanged
from harness.serve import scales
from harness.serve.vllm import server
from harness.serve.vllm.arguments import PLUGIN

_IN_VLLM = Path(__file__).with_name("in_vllm")


@contextmanager
def _with_one_experts_scale_on_all() -> Iterator[None]:
    merged = scales._merge_weights  # noqa: SLF001 - what the fault is in

    def with_the_firsts(
        layers: Iterable[scales.Quantized], own: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        layers = tuple(layers)
        right = merged(layers, own)
        firsts: dict[str, Tensor] = {}
        for one in layers:
            if one.linear.is_routed:
                place = f"{one.linear.experts}.{one.linear.name.rpartition('.')[2]}"
                right[one.name] = firsts.setdefault(place, right[one.name])
        return right

    beside = f"{_IN_VLLM}{os.pathsep}{PLUGIN}"
    with (
        exchanged(scales, "_merge_weights", with_the_firsts),
        exchanged(server, "PLUGIN", beside),
    ):
        yield


FAULTS = (
    RunFault(
        name="engine-shares-one-expert-scale",
        incident=VLLM + "issues/54974",
        what="FP8: the engine computes all experts of a layer with the weight scale of the first",
        kind=Kind.ENGINE,
        during=_with_one_experts_scale_on_all,
        format="fp8",
    ),
)
