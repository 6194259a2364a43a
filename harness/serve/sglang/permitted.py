"""Which of SGLang's options a user may set with `--engine-arg`, as data; a list of what is allowed.

Source: `ServerArgs` of sglang 0.5.15.
"""

from harness.serve.vllm.options import Permission

_DECIDED = frozenset(
    """
    admin-api-key api-key chat-template completion-template config context-length
    custom-weight-loader delete-ckpt-after-loading device dtype fastapi-root-path forward-hooks
    grpc-mode hf-chat-template-name host is-embedding json-model-override-args kv-cache-dtype
    load-format lora-paths model model-impl model-loader-extra-config model-path modelopt-quant
    nccl-port port preferred-sampling-params quantization quantization-param-path
    quantize-and-serve revision sampling-defaults served-model-name skip-server-warmup
    skip-tokenizer-init speculative-algorithm speculative-draft-model-path ssl-ca-certs
    ssl-certfile ssl-keyfile ssl-keyfile-password tensor-parallel-size tokenizer-mode
    tokenizer-path torchao-config tp tp-size trust-remote-code
    """.split()  # noqa: SIM905 -- a name a line would be two screens
)
"""What harness decides itself: refused before any SGLang is asked."""
_MEMORY = """
    chunked-prefill-size cpu-offload-gb max-mamba-cache-size max-prefill-tokens
    max-running-requests max-total-tokens mem-fraction-static page-size
"""
_BATCHES = """
    disable-cuda-graph disable-cuda-graph-padding disable-decode-cuda-graph
    disable-overlap-schedule disable-piecewise-cuda-graph disable-prefill-cuda-graph
    disable-radix-cache enable-deterministic-inference enable-mixed-chunk
    num-continuous-decode-steps random-seed schedule-conservativeness schedule-policy
    stream-interval
"""
_KERNELS = """
    attention-backend cuda-graph-backend-decode cuda-graph-backend-prefill
    decode-attention-backend disable-custom-all-reduce disable-flashinfer-autotune
    disable-shared-experts-fusion ep ep-size expert-parallel-size flashinfer-mxfp4-moe-precision
    fp4-gemm-backend fp8-gemm-backend grammar-backend linear-attn-backend mamba-backend
    mamba-ssm-dtype mm-attention-backend moe-a2a-backend moe-runner-backend
    prefill-attention-backend sampling-backend triton-attention-num-kv-splits
"""
_PROCESSES = "log-level soft-watchdog-timeout watchdog-timeout"
OF_SGLANG = Permission(
    _DECIDED,
    dict.fromkeys(f"{_MEMORY} {_BATCHES} {_KERNELS} {_PROCESSES}".split(), ()),
)
