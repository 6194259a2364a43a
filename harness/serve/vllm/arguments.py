"""The exact arguments and environment of a vLLM server, whoever runs it: a process or a container.

Both arms are started with the same, but for the emulation that only a quantized checkpoint has
(capabilities.py). What the user gives with `--engine-arg KEY=VALUE` comes last, so it wins; what
harness must decide itself is refused there.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.artifacts import EngineSpec
from harness.errors import UsageError
from harness.models import Source
from harness.serve.vllm.capabilities import Capability, Demands

SERVED_NAME = "harness"
"""Name under which our servers know the model; requests must give it."""
MODULE = "vllm.entrypoints.openai.api_server"
"""Runs where the `vllm` command does not: the CPU build's lacks the package of that name."""
PLUGIN = Path(__file__).resolve().parents[2] / "plugin"
"""Put on vLLM's PYTHONPATH; holds the plugin and its entry point."""
REPORT_VARIABLE = "HARNESS_LOAD_REPORT"
REPORT_PREFIX = "load_report"

_OURS = frozenset(
    {
        "api-key",
        "config",
        "host",
        "max-model-len",
        "model",
        "port",
        "served-model-name",
        "tensor-parallel-size",
        "trust-remote-code",
        "uds",
    }
)
_KEY = re.compile(r"[a-z][a-z0-9.-]*")
_SECRET = re.compile(
    r"(TOKEN|API_?KEY|SECRET|PASSWORD|CREDENTIALS?|ACCESS_KEY(_ID)?)$", re.IGNORECASE
)
_DROPPED = frozenset(
    {"PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "VLLM_PLUGINS", "VLLM_API_KEY", REPORT_VARIABLE}
)
_SMALL_MODEL_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What a server's arguments and environment follow from."""

    engine: EngineSpec
    source: Source
    demands: Demands
    capability: Capability
    has_flashinfer: bool


def server_flags(setting: Setting) -> tuple[str, ...]:
    """Return the flags that decide what is computed: without model, name, host and port.

    Raises:
        UsageError: a user's argument is malformed or one that harness decides.
    """
    engine, source = setting.engine, setting.source
    flags: list[str] = []
    if engine.max_model_len is not None:
        flags += ["--max-model-len", str(engine.max_model_len)]
    if engine.tensor_parallel_size > 1:
        flags += ["--tensor-parallel-size", str(engine.tensor_parallel_size)]
    flags += setting.capability.arguments
    if "vision_config" in source.config:
        flags += ["--language-model-only"]
    if _has_gated_delta_net(source.config) and _lacks_flashinfer(setting):
        flags += ["--gdn-prefill-backend", "triton"]
    declared = engine.numerics == "declared"
    flags += setting.capability.emulation(setting.demands, declared=declared)
    return (*flags, *user_flags(engine.arguments))


def user_flags(arguments: Iterable[str]) -> tuple[str, ...]:
    """Translate `KEY=VALUE` to vLLM's flags: `true` is `--key`, `false` is `--no-key`.

    Raises:
        UsageError: one is malformed, or one that harness decides itself.
    """
    flags: list[str] = []
    for argument in arguments:
        name, separator, value = argument.partition("=")
        key = name.removeprefix("--").replace("_", "-").lower()
        if not separator or not _KEY.fullmatch(key):
            message = f"--engine-arg '{argument}': write KEY=VALUE, such as max-num-seqs=16."
            raise UsageError(message)
        if key in _OURS or key.startswith("ssl-"):
            message = (
                f"--engine-arg '{argument}': harness itself decides '{key}'. Leave it out; "
                "the length is the suite's, and GPUs are --tensor-parallel-size."
            )
            raise UsageError(message)
        if value.lower() in {"true", "false"}:
            flags += [f"--{key}" if value.lower() == "true" else f"--no-{key}"]
        else:
            flags += [f"--{key}", value]
    return tuple(flags)


def api_server(flags: Iterable[str], *, model: str, host: str, port: int) -> tuple[str, ...]:
    """Return the arguments of `python -m vllm.entrypoints.openai.api_server`."""
    place = ("--model", model, "--served-model-name", SERVED_NAME, "--host", host)
    return (*place, "--port", str(port), *flags)


def own_variables(setting: Setting, *, plugin: str, records: str) -> dict[str, str]:
    """Return the variables that harness sets in a server's environment.

    Args:
        setting: what is served.
        plugin: folder of the plugin, as the server sees it.
        records: folder for load reports, as the server sees it.
    """
    variables = {
        "PYTHONPATH": plugin,
        REPORT_VARIABLE: f"{records}/{REPORT_PREFIX}",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "PYTHONUNBUFFERED": "1",
    }
    if setting.capability.platform == "cpu":
        num_bytes = sum(header.num_bytes for header in setting.source.tensors.values())
        space = "1" if num_bytes < _SMALL_MODEL_BYTES else "4"
        # Sampling with log probabilities is compiled even in eager mode, which needs a C++ compiler
        # that many machines lack; without one the server dies at the first such request.
        variables["TORCH_COMPILE_DISABLE"] = "1"
        variables["VLLM_CPU_KVCACHE_SPACE"] = os.environ.get("VLLM_CPU_KVCACHE_SPACE", space)
    if _lacks_flashinfer(setting):
        variables["VLLM_USE_FLASHINFER_SAMPLER"] = "0"
    return variables


def process_environment(
    own: Mapping[str, str], *, python: Path, gpus: tuple[int, ...] | None
) -> dict[str, str]:
    """Return the whole environment of a server process: ours on top of what is there.

    Secrets stay behind: the server reads local files, and its log is kept.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in _DROPPED and not _SECRET.search(name)
    }
    paths = [own["PYTHONPATH"], *filter(None, [inherited.get("PYTHONPATH")])]
    inherited["PATH"] = os.pathsep.join([str(python.parent), inherited.get("PATH", os.defpath)])
    chosen = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))} if gpus is not None else {}
    return {**inherited, **own, **chosen, "PYTHONPATH": os.pathsep.join(paths)}


def recorded_arguments(flags: Iterable[str], environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return what Deployment records: the flags, and vLLM's own variables, which decide too."""
    variables = (
        f"{name}={value}" for name, value in sorted(environment.items()) if name.startswith("VLLM_")
    )
    return (*flags, *variables)


def _lacks_flashinfer(setting: Setting) -> bool:
    return setting.capability.platform == "cuda" and not setting.has_flashinfer


def _has_gated_delta_net(config: Mapping[str, object]) -> bool:
    text = config.get("text_config")
    return any(
        isinstance(part, Mapping) and "linear_num_key_heads" in part for part in (config, text)
    )
