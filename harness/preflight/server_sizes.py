"""What one of two servers of vLLM on the same device takes, from files and configurations.

An upper bound of keys and values: what layers share, leave out or compress is not looked at. What
a step takes was not derived but chosen: a server that needs more is started again alone.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple

from harness.artifacts import EngineSpec, ServerShare, Suite
from harness.models import Source
from harness.preflight.devices import Memory

GIB = 1 << 30
USED_SHARE = 0.95
"""Of the memory that is free now."""
_FULL, _FEW = 64, 16
"""Questions of full length whose keys and values fit: those asked at once, and the least."""
_STEP_BYTES = 4 * GIB
"""What a server takes besides weights, keys and values: its context, graphs, a step's results."""
_READ_TOKENS, _READ_COPIES = 2048, 3
"""Tokens of a prompt read at once, and how often the logits of each are there, in float32."""
_STATE_BYTES = 2 << 20
"""Of a layer with a recurrent state, for each question."""
_STATES = ("linear_", "mamba_", "ssm_")
_HOST_BYTES = 3 * GIB
"""Of the processes of one server on a CPU, besides weights and keys."""
_SMALL_MODEL = GIB
"""Below it vLLM's CPU build is given 1 GiB for keys and values, else 4 GiB."""


class TwoServers(NamedTuple):
    """The two servers of a run."""

    engine: EngineSpec
    suite: Suite
    baseline: Source
    candidate_bytes: int
    """Of its weights."""

    @property
    def baseline_bytes(self) -> int:
        """Return those of the baseline's weights."""
        return weights_of(self.baseline)

    @property
    def length(self) -> int:
        """Return the tokens of the longest question with its answer."""
        return self.engine.max_model_len or self.suite.max_model_len

    @property
    def text(self) -> Mapping[str, object]:
        """Return the configuration of the part that reads text."""
        config = self.baseline.config
        text = config.get("text_config", config)
        return text if isinstance(text, Mapping) else {}


def weights_of(source: Source) -> int:
    """Return the bytes of a model's tensors."""
    return sum(header.num_bytes for header in source.tensors.values())


def in_gib(num_bytes: float) -> str:
    """Return a number of bytes as it is said."""
    return f"{num_bytes / GIB:.1f} GiB"


def host_bytes(servers: TwoServers) -> int:
    """Return what both servers take of the host where it computes."""
    plain = servers.baseline_bytes
    default = 1 if plain < _SMALL_MODEL else 4
    asked = os.environ.get("VLLM_CPU_KVCACHE_SPACE", "")
    space = int(asked) if asked.isdigit() else default
    return plain + servers.candidate_bytes + 2 * (_HOST_BYTES + space * GIB)


def share_of(servers: TwoServers, memory: Memory) -> ServerShare | str:
    """Return what each server takes of a GPU, or why two do not fit."""
    each = _one_question(servers)
    if each is None:
        return "how much its keys and values take is not known"
    size, step = servers.engine.tensor_parallel_size, _step_bytes(servers)
    plain, quantized = servers.baseline_bytes // size, servers.candidate_bytes // size
    left = (int(USED_SHARE * memory.free) - plain - quantized) // 2 - step
    if left < _FEW * each:
        needed = plain + quantized + 2 * (step + _FEW * each)
        return f"both need {in_gib(needed)}, {in_gib(memory.free)} of GPU memory are free"
    percent = max(100 * (min(plain, quantized) + step) // memory.total, 1)
    return ServerShare(kv_bytes=min(left, _FULL * each), utilization=percent / 100, requests=_FULL)


def taken_by_baseline(servers: TwoServers, share: ServerShare) -> int:
    """Return what the baseline's server takes of a GPU."""
    plain = servers.baseline_bytes // servers.engine.tensor_parallel_size
    return plain + _step_bytes(servers) + share.kv_bytes


def _one_question(servers: TwoServers) -> int | None:
    """Return the bytes of the keys and values of one question of full length on a GPU.

    None where the configuration does not say.
    """
    values = servers.text
    layers, width = values.get("num_hidden_layers"), _width(values)
    if not isinstance(layers, int) or width is None:
        return None
    states = any(str(name).startswith(_STATES) for name in values)
    return layers * (2 * servers.length * width + (_STATE_BYTES if states else 0))


def _width(values: Mapping[str, object]) -> int | None:
    """Return the numbers that a layer keeps of a token: keys and values, or what both are of."""
    latent, rope = values.get("kv_lora_rank"), values.get("qk_rope_head_dim")
    if isinstance(latent, int) and isinstance(rope, int):
        return latent + rope
    heads, hidden = values.get("num_attention_heads"), values.get("hidden_size")
    if not isinstance(heads, int) or not isinstance(hidden, int) or heads < 1:
        return None
    own, size = values.get("num_key_value_heads"), values.get("head_dim")
    width = (own if isinstance(own, int) else heads) * (
        size if isinstance(size, int) else -(-hidden // heads)
    )
    return 2 * width


def _step_bytes(servers: TwoServers) -> int:
    value = servers.text.get("vocab_size")
    vocabulary = value if isinstance(value, int) else 0
    return _STEP_BYTES + 4 * _READ_COPIES * min(servers.length, _READ_TOKENS) * vocabulary
