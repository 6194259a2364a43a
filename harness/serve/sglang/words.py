"""What SGLang's log says of a damaged deployment, and of its kernels, as data.

SGLang warns once, or logs at all, and serves on. Source: sglang 0.5.15, models/*.py,
layers/quantization/{modelopt_quant,kv_cache,marlin_utils_fp4}.py, model_loader/loader.py.
"""

import re

from harness.artifacts import Severity
from harness.errors import ReasonCode
from harness.serve.vllm.log_patterns import LogPattern
from harness.serve.vllm.observe import EngineWords

DAMAGE: tuple[LogPattern, ...] = (
    LogPattern(
        id="parameter-skipped",
        pattern=re.compile(
            r"not found in (params_dict|the model|model parameters)"
            r"|[Ss]kip(ping)? loading (of )?(weight|param|tensor)"
            r"|Some weights (of the checkpoint )?(were|are) not (used|loaded|initialized)"
        ),
        severity=Severity.ERROR,
        reason=ReasonCode.LOAD_MISMATCH,
        message="a tensor of the files has no place in SGLang's model and was skipped",
        incident="a 27B FP8 model served garbage behind 256 warnings (SGLang issue 23687)",
    ),
    LogPattern(
        id="gate-up-scale-mismatch",
        pattern=re.compile(r"w1_weight_scale(_2)? must match w3_weight_scale"),
        severity=Severity.ERROR,
        reason=ReasonCode.SCALE_MISMATCH,
        message="gate and up of an expert have global scales that differ; SGLang uses the gate's "
        "for both",
        incident="experts that calibration had not seen looped '1\\n1\\n1\\n' (Model-Optimizer "
        "issue 1411)",
    ),
    LogPattern(
        id="default-kv-scale",
        pattern=re.compile(
            r"no scaling factors? (was |were )?provided|[Dd]efaulting to scaling factors? of 1\.0"
            r"|Using KV cache scaling factor 1\.0"
        ),
        severity=Severity.ERROR,
        reason=ReasonCode.LOAD_MISMATCH,
        message="the files hold calibrated scales of keys and values, and SGLang uses 1.0",
        incident="Qwen3.5's k and v scales were dropped by vLLM up to 0.27.1, and are by SGLang",
        only_kv_calibrated=True,
    ),
    LogPattern(
        id="negative-scales",
        pattern=re.compile(r"assumes non-negative scales, but negative scales"),
        severity=Severity.ERROR,
        reason=ReasonCode.SCALE_MISMATCH,
        message="block scales are negative, which SGLang's kernel reads as something else",
        incident="a sign bit of an FP8 scale becomes part of its value",
    ),
    LogPattern(
        id="quantized-online",
        pattern=re.compile(r"[Qq]uantiz(ing|ed) (the )?(model|weights) (online|on the fly)"),
        severity=Severity.ERROR,
        reason=ReasonCode.LOAD_MISMATCH,
        message="SGLang quantized weights by itself, so what is served is not what the files hold",
        incident="a baseline that is quantized too hides the loss of the candidate",
    ),
)
WORDS = EngineWords(
    DAMAGE,
    (
        ("experts", re.compile(r"Use (\w+) as MoE runner backend")),
        ("attention", re.compile(r"Use (\w+) attention backend")),
    ),
)
