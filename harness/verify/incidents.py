"""Where each check's fault was met before, as links that a report can carry."""

from collections.abc import Mapping

_GITHUB = "https://github.com/"
_MODELOPT = f"{_GITHUB}NVIDIA/Model-Optimizer/"
_VLLM = f"{_GITHUB}vllm-project/vllm/"
_SGLANG = f"{_GITHUB}sgl-project/sglang/"
_LLMCOMPRESSOR = f"{_GITHUB}vllm-project/llm-compressor/"

INCIDENTS: Mapping[str, str] = {
    "shards-complete": f"{_MODELOPT}pull/2276",
    "quantization-declared": f"{_MODELOPT}pull/2202",
    "quantized-layers-exist": f"{_MODELOPT}pull/1323",
    "expert-input-scales-complete": f"{_MODELOPT}pull/1340",
    "experts-complete": f"{_MODELOPT}issues/2011",
    "layer-tensors-complete": f"{_SGLANG}issues/34895",
    "layer-tensors-well-formed": f"{_VLLM}issues/44953",
    "quantizer-state-removed": f"{_MODELOPT}issues/180",
    "fused-layers-alike": f"{_MODELOPT}issues/2091",
    "scales-finite": f"{_MODELOPT}issues/1633",
    "scales-positive": f"{_MODELOPT}pull/1382",
    "scales-not-denormal": f"{_VLLM}pull/42601",
    "expert-gate-up-scales-equal": f"{_VLLM}issues/54974",
    "fused-scales-equal": f"{_VLLM}pull/38517",
    "expert-scales-distinct": f"{_MODELOPT}pull/1340",
    "fused-input-scales-equal": f"{_VLLM}issues/54974",
    "input-scales-measured": f"{_VLLM}issues/54189",
    "input-scales-plausible": f"{_VLLM}pull/42601",
    "weight-scales-plausible": f"{_VLLM}pull/34577",
    "weights-finite": f"{_LLMCOMPRESSOR}issues/2826",
    "weights-not-zero": f"{_GITHUB}ollama/ollama/issues/15902",
    "kv-scales-consistent": f"{_VLLM}issues/54623",
    "quantized-layers-declared": f"{_VLLM}issues/47215",
    "unquantized-layers-ignored": f"{_MODELOPT}pull/1858",
    "routers-ignored": f"{_MODELOPT}pull/1858",
    "routers-and-vision-unquantized": f"{_MODELOPT}pull/1858",
    "embeddings-and-norms-unquantized": f"{_MODELOPT}pull/2339",
    "ignore-patterns-precise": f"{_VLLM}pull/30164",
    "ignore-patterns-used": f"{_VLLM}issues/54547",
    "experts-quantized": f"{_MODELOPT}issues/1255",
    "bits-per-weight": f"{_MODELOPT}issues/868",
    "declarations-agree": f"{_VLLM}issues/47215",
    "declaration-seen": f"{_VLLM}issues/47215",
    "index-matches-shards": f"{_VLLM}issues/57108",
    "weight-files-listed": f"{_VLLM}pull/5005",
    "files-match-manifest": f"{_MODELOPT}pull/2276",
    "sidecars-present": f"{_VLLM}issues/46641",
    "sidecars-readable": f"{_VLLM}issues/46641",
    "token-ids-in-embedding": f"{_VLLM}pull/9634",
    "tokenizer-matches-source": f"{_VLLM}issues/46641",
    "engine-loads-format": f"{_LLMCOMPRESSOR}issues/1768",
    "nibbles-in-order": f"{_MODELOPT}pull/2276",
    "scale-layout": f"{_VLLM}issues/48898",
    "weights-near-source": f"{_MODELOPT}pull/2276",
    "weights-near-baseline": f"{_MODELOPT}pull/2276",
    "unquantized-tensors-copied": f"{_MODELOPT}pull/2276",
    "source-tensors-accounted": f"{_LLMCOMPRESSOR}issues/2568",
    "draft-head-kept": f"{_MODELOPT}pull/2427",
    "config-matches-source": f"{_MODELOPT}issues/1720",
    "sidecars-match-source": f"{_VLLM}issues/46641",
    "chat-template-matches-source": f"{_VLLM}issues/46641",
    "generation-config-matches-source": f"{_VLLM}issues/46641",
    "engine-names-resolved": f"{_VLLM}issues/40252",
    "engine-widths": f"{_VLLM}issues/48898",
}
"""By the check's id."""
CHECK_IDS = frozenset(INCIDENTS)


def incident_of(check: str) -> str:
    """Return the link of a check.

    Raises:
        KeyError: the check has none; each must have one.
    """
    return INCIDENTS[check]
