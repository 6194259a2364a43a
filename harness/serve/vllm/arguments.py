"""The exact arguments and own variables of a vLLM server, a process or a container.

Both arms are started with the same, but for the emulation that only a quantized checkpoint has
(harness.engines). What the user gives with `--engine-arg KEY=VALUE` comes last, so it wins; what
may be given there is in options.py and permitted.py.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from harness.artifacts import EngineSpec, ServerShare
from harness.engines import Capability, Demands
from harness.models import Source, find_weights
from harness.serve.vllm.variables import (
    ADDRESS_VARIABLE,
    KEY_VARIABLE,
    REPORT_PREFIX,
    REPORT_VARIABLE,
)

SERVED_NAME = "harness"
"""Name under which our servers know the model; requests must give it."""
MODULE = "vllm.entrypoints.openai.api_server"
"""Runs where the `vllm` command does not: the CPU build's lacks the package of that name."""
PLUGIN = Path(__file__).resolve().parents[2] / "plugin"
"""Put on vLLM's PYTHONPATH; holds the plugin and its entry point."""
_SMALL_MODEL_BYTES = 1 << 30
_CORES_VARIABLE = "VLLM_CPU_OMP_THREADS_BIND"


class Surrounded(NamedTuple):
    """What a server's environment follows from, which is known before there is a checkpoint."""

    platform: str
    """Of the vLLM, `cpu` or `cuda`."""
    has_flashinfer: bool
    num_bytes: int
    """Of the model's tensors; it matters on a CPU alone."""
    share: ServerShare | None

    @property
    def lacks_flashinfer(self) -> bool:
        """Return whether vLLM must be told to do without."""
        return self.platform == "cuda" and not self.has_flashinfer


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What a server's arguments and environment follow from."""

    engine: EngineSpec
    source: Source
    demands: Demands
    capability: Capability
    has_flashinfer: bool
    user_flags: tuple[str, ...] = ()
    """Made of the engine's arguments, by the options that this vLLM has."""

    @property
    def surrounded(self) -> Surrounded:
        """Return what of it decides the environment."""
        return Surrounded(
            platform=self.capability.platform,
            has_flashinfer=self.has_flashinfer,
            num_bytes=sum(header.num_bytes for header in self.source.tensors.values()),
            share=self.engine.share,
        )


def server_flags(setting: Setting) -> tuple[str, ...]:
    """Return the flags that decide what is computed: without model, name, host and port."""
    engine, source = setting.engine, setting.source
    flags: list[str] = []
    if engine.max_model_len is not None:
        flags += ["--max-model-len", str(engine.max_model_len)]
    if engine.tensor_parallel_size > 1:
        flags += ["--tensor-parallel-size", str(engine.tensor_parallel_size)]
    flags += setting.capability.arguments
    if "vision_config" in source.config:
        flags += _where_taken(setting, "--language-model-only")
    if find_weights(source.path).is_overridden:
        flags += ["--load-format", "safetensors"]  # what the index names, which was verified
    if _has_gated_delta_net(source.config) and setting.surrounded.lacks_flashinfer:
        flags += _where_taken(setting, "--gdn-prefill-backend", "triton")
    declared = engine.numerics == "declared"
    flags += setting.capability.emulation(setting.demands, declared=declared)
    flags += _shared(setting)
    return (*flags, *setting.user_flags)


def _shared(setting: Setting) -> tuple[str, ...]:
    """Return the flags that leave room on a GPU for another server, where this version has them."""
    share, memory = setting.engine.share, "--kv-cache-memory-bytes"
    if share is None or not share.kv_bytes or not _where_taken(setting, memory):
        return ()
    return (
        *(memory, str(share.kv_bytes)),
        *("--gpu-memory-utilization", f"{share.utilization:.2f}"),
        *("--max-num-seqs", str(share.requests)),
    )


def _where_taken(setting: Setting, flag: str, *value: str) -> tuple[str, ...]:
    """Return a flag that spares work, unless this version is known not to take it."""
    is_lacking = setting.capability.abilities.takes(flag, *value) is False
    return () if is_lacking else (flag, *value)


def api_server(flags: Iterable[str], *, model: str, host: str, port: int) -> tuple[str, ...]:
    """Return the arguments of `python -m vllm.entrypoints.openai.api_server`."""
    place = ("--model", model, "--served-model-name", SERVED_NAME, "--host", host)
    return (*place, "--port", str(port), *flags)


def own_variables(place: Surrounded, *, plugin: str, records: str, key: str) -> dict[str, str]:
    """Return the variables that harness sets in a server's environment.

    Args:
        place: where it runs.
        plugin: folder of the plugin, as the server sees it.
        records: folder for load reports, as the server sees it.
        key: API key that requests must bring. An argument would show in the list of processes.
    """
    variables = {
        "PYTHONPATH": plugin,
        # Neither the folder that it runs in nor that of the model is one to import from.
        "PYTHONSAFEPATH": "1",
        KEY_VARIABLE: key,
        REPORT_VARIABLE: f"{records}/{REPORT_PREFIX}",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        # Where vLLM's processes meet; else it is the address by which others reach this machine.
        ADDRESS_VARIABLE: "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONUNBUFFERED": "1",
    }
    if place.platform == "cpu":
        space = "1" if place.num_bytes < _SMALL_MODEL_BYTES else "4"
        # Sampling with log probabilities is compiled even in eager mode, which needs a C++ compiler
        # that many machines lack; without one the server dies at the first such request.
        variables["TORCH_COMPILE_DISABLE"] = "1"
        if place.share is not None:
            variables[_CORES_VARIABLE] = ",".join(map(str, place.share.cores))
        variables["VLLM_CPU_KVCACHE_SPACE"] = os.environ.get("VLLM_CPU_KVCACHE_SPACE", space)
    if place.lacks_flashinfer:
        variables["VLLM_USE_FLASHINFER_SAMPLER"] = "0"
    return variables


def _has_gated_delta_net(config: Mapping[str, object]) -> bool:
    text = config.get("text_config")
    return any(
        isinstance(part, Mapping) and "linear_num_key_heads" in part for part in (config, text)
    )
