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
    """
    allow-credentials allowed-headers allowed-methods allowed-origins api-key api-server-count
    config device-ids download-dir dtype generation-config grpc grpc-port headless host
    kv-cache-dtype language-model-only load-format logprobs-mode max-model-len middleware model
    model-tag override-generation-config port quantization revision root-path served-model-name
    skip-tokenizer-init ssl-ca-certs ssl-cert-reqs ssl-certfile ssl-ciphers ssl-keyfile
    tensor-parallel-size tokenizer tokenizer-mode tokenizer-revision trust-remote-code uds
    """.split()  # noqa: SIM905 -- a name a line would be two screens
)
"""What harness decides itself: refused before any vLLM is asked."""

_FLOATS = ("auto", "float32", "float16", "bfloat16")
_MEMORY = """
    block-size cpu-offload-gb gpu-memory-utilization kv-cache-memory-bytes limit-mm-per-prompt
    mm-processor-cache-gb num-gpu-blocks-override skip-mm-profiling swap-space
"""
_BATCHES = """
    async-scheduling disable-chunked-mm-input disable-hybrid-kv-cache-manager
    enable-chunked-prefill enable-prefix-caching long-prefill-token-threshold
    max-long-partial-prefills max-num-batched-tokens max-num-partial-prefills max-num-seqs
    prefix-caching-hash-algo scheduling-policy seed stream-interval
"""
_KERNELS = """
    all2all-backend attention-backend disable-cascade-attn disable-custom-all-reduce
    enable-expert-parallel enable-flashinfer-autotune enforce-eager gdn-prefill-backend
    kda-decode-backend kda-prefill-backend linear-backend mamba-backend mamba-block-size
    mamba-cache-mode max-cudagraph-capture-size moe-backend optimization-level performance-mode
"""
_PROCESSES = """
    disable-log-stats disable-uvicorn-access-log max-logprobs max-parallel-loading-workers
    numa-bind shutdown-timeout use-tqdm-on-load uvicorn-log-level
"""
PERMITTED: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(f"{_MEMORY} {_BATCHES} {_KERNELS} {_PROCESSES}".split(), ()),
    "mamba-cache-dtype": _FLOATS,
    "mamba-ssm-cache-dtype": _FLOATS,
    "distributed-executor-backend": ("mp", "uni"),
    "safetensors-load-strategy": ("eager", "lazy", "prefetch"),
}
"""By the first of an option's long names: the values it may have, or any that the parser takes."""
