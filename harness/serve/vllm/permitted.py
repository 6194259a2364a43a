"""Which of vLLM's options a user may set with `--engine-arg`, as data.

A list of what is allowed, for vLLM has more than 300 options and gets new ones with each version:
some import code by name (`--worker-cls`, `--middleware`, the backend in `--compilation-config`),
some read files, some open the server to others, and some change what is judged: with
`--quantization` or `--kv-cache-dtype` the unquantized model would be quantized too, and with it
the loss would be hidden. What is left is how the same model is computed: memory, batches,
kernels.

Source: `make_arg_parser` of vLLM 0.25.0 and 0.32.0.
"""

from collections.abc import Mapping

DECIDED = frozenset(
    {
        "allow-credentials",
        "allowed-headers",
        "allowed-methods",
        "allowed-origins",
        "api-key",
        "api-server-count",
        "config",
        "device-ids",
        "download-dir",
        "dtype",
        "generation-config",
        "grpc",
        "grpc-port",
        "headless",
        "host",
        "kv-cache-dtype",
        "language-model-only",
        "load-format",
        "logprobs-mode",
        "max-model-len",
        "middleware",
        "model",
        "model-tag",
        "override-generation-config",
        "port",
        "quantization",
        "revision",
        "root-path",
        "served-model-name",
        "skip-tokenizer-init",
        "ssl-ca-certs",
        "ssl-cert-reqs",
        "ssl-certfile",
        "ssl-ciphers",
        "ssl-keyfile",
        "tensor-parallel-size",
        "tokenizer",
        "tokenizer-mode",
        "tokenizer-revision",
        "trust-remote-code",
        "uds",
    }
)
"""What harness decides itself: refused before any vLLM is asked."""

_FLOATS = ("auto", "float32", "float16", "bfloat16")
_ANY: tuple[str, ...] = ()
PERMITTED: Mapping[str, tuple[str, ...]] = {
    # Memory.
    "block-size": _ANY,
    "cpu-offload-gb": _ANY,
    "gpu-memory-utilization": _ANY,
    "kv-cache-memory-bytes": _ANY,
    "limit-mm-per-prompt": _ANY,
    "mm-processor-cache-gb": _ANY,
    "num-gpu-blocks-override": _ANY,
    "skip-mm-profiling": _ANY,
    "swap-space": _ANY,
    # Batches and their order.
    "async-scheduling": _ANY,
    "disable-chunked-mm-input": _ANY,
    "disable-hybrid-kv-cache-manager": _ANY,
    "enable-chunked-prefill": _ANY,
    "enable-prefix-caching": _ANY,
    "long-prefill-token-threshold": _ANY,
    "max-long-partial-prefills": _ANY,
    "max-num-batched-tokens": _ANY,
    "max-num-partial-prefills": _ANY,
    "max-num-seqs": _ANY,
    "prefix-caching-hash-algo": _ANY,
    "scheduling-policy": _ANY,
    "seed": _ANY,
    "stream-interval": _ANY,
    # Kernels and graphs.
    "all2all-backend": _ANY,
    "attention-backend": _ANY,
    "disable-cascade-attn": _ANY,
    "disable-custom-all-reduce": _ANY,
    "enable-expert-parallel": _ANY,
    "enable-flashinfer-autotune": _ANY,
    "enforce-eager": _ANY,
    "gdn-prefill-backend": _ANY,
    "kda-decode-backend": _ANY,
    "kda-prefill-backend": _ANY,
    "linear-backend": _ANY,
    "mamba-backend": _ANY,
    "mamba-block-size": _ANY,
    "mamba-cache-dtype": _FLOATS,
    "mamba-cache-mode": _ANY,
    "mamba-ssm-cache-dtype": _FLOATS,
    "max-cudagraph-capture-size": _ANY,
    "moe-backend": _ANY,
    "optimization-level": _ANY,
    "performance-mode": _ANY,
    # Processes, loading and logs.
    "distributed-executor-backend": ("mp", "uni"),
    "disable-log-stats": _ANY,
    "disable-uvicorn-access-log": _ANY,
    "max-logprobs": _ANY,
    "max-parallel-loading-workers": _ANY,
    "numa-bind": _ANY,
    "safetensors-load-strategy": ("eager", "lazy", "prefetch"),
    "shutdown-timeout": _ANY,
    "use-tqdm-on-load": _ANY,
    "uvicorn-log-level": _ANY,
}
"""By the first of an option's long names: the values it may have, or any that the parser takes."""
