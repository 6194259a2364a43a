"""Stands in for the Python of vLLM's environment: answers the probe, and serves as vLLM does.

It is given no more of a test's environment than a real one. What it shall do is in the file
FAKE_HOW, which the fixture names, or in the variables of an image: FAKE_VLLM is `ready`, `slow`,
`hang`, `open` (asks for no key), `leak` (writes its key to its log), or `die` with FAKE_LOG.
Its processes are as stubborn as can be: one ignores SIGTERM, one has left the session.
"""

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HOW = os.environ | (
    json.loads(Path(os.environ["FAKE_HOW"]).read_text(encoding="utf-8"))
    if "FAKE_HOW" in os.environ
    else {}
)
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
FACTS: dict[str, object] = {
    "version": HOW.get("FAKE_VERSION", "0.32.0"),
    "platform": HOW.get("FAKE_PLATFORM", "cpu"),
    "torch": "2.13.0",
    "python_version": "3.11.0",
    "has_flashinfer": False,
    "gpus": json.loads(HOW.get("FAKE_GPUS", "[]")),
    "installed": "1",
}
OPTIONS = [
    {"names": [n], "negations": [f"no-{n}"], "takes_value": False, "kind": "text", "choices": []}
    for n in ("enforce-eager", "enable-prefix-caching", "language-model-only", "trust-remote-code")
] + [
    {"names": names.split(), "negations": [], "takes_value": True, "kind": kind, "choices": choices}
    for names, kind, choices in (
        ("max-num-seqs", "int", []),
        ("max-num-batched-tokens", "size", []),
        ("gpu-memory-utilization device-memory-utilization", "float", []),
        ("moe-backend", "text", ["auto", "emulation", "flashinfer_cutlass"]),
        ("safetensors-load-strategy", "text", ["eager", "lazy", "torchao"]),
        ("distributed-executor-backend", "text", []),
        ("limit-mm-per-prompt", "json", []),
        ("hf-overrides", "text", []),
        ("worker-cls", "text", []),
        ("host", "text", []),
        ("linear-backend", "text", ["auto", "emulation"]),
        ("gdn-prefill-backend", "text", []),
        ("kv-cache-dtype", "text", ["auto", "fp8", "fp8_e4m3"]),
        ("api-key old-key", "text", []),
    )
]
REPORT = {
    "device": "cpu",
    "num_tensors": 10,
    "num_taken": 10,
    "untaken": [],
    "num_untaken": 0,
    "set_aside": 0,
    "num_parameters": 12,
    "unfilled": [],
    "num_unfilled": 0,
    "kernels": {
        "linear": ["CpuEmulationNvFp4LinearKernel"],
        "experts": ["EMULATION CpuEmulationNvFp4Experts"],
        "attention": ["CPU_ATTN"],
        "kv_cache": ["auto"],
    },
    "kv_scales": "none",
}


def option(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/v1") and not self.is_allowed():
            self.answer(401, {"error": "Unauthorized"})
            return
        name, length = option("--served-model-name"), int(option("--max-model-len"))
        listed = {"data": [{"id": name, "max_model_len": length}]}
        self.answer(200, listed if self.path == "/v1/models" else {})

    def is_allowed(self) -> bool:
        wanted = f"Bearer {os.environ['VLLM_API_KEY']}"
        return HOW["FAKE_VLLM"] == "open" or self.headers.get("Authorization") == wanted

    def answer(self, status: int, values: object) -> None:
        body = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def answers() -> str:
    """What questions.py prints in an environment with all that harness knows of."""
    known: dict[str, object] = {
        "version": FACTS["version"],
        "platform": {"device": FACTS["platform"], "capability": None},
        "options": OPTIONS,
        "methods": ["compressed-tensors", "fp8", "modelopt", "modelopt_fp4", "modelopt_mixed"],
        "quant_algos": ["FP8", "FP8_PB_WO", "MIXED_PRECISION", "NVFP4", "W4A16_NVFP4"],
        "linear_kernels": {"fp8": ["CPUFP8W8A8ScaledMMLinearKernel"], "nvfp4": [], "fp8_block": []},
        "architectures": ["Qwen3_5MoeForConditionalGeneration", "TransformersForCausalLM"],
        "by_transformers": ["Qwen3ForCausalLM"],
        "loaders": {"auto": "DefaultModelLoader"},
        "adapters": {"found": ["load-report"], "missing": {}, "mandatory": ["api-key"]},
        "foretold": {},
        **json.loads(HOW.get("FAKE_ANSWERS", "{}")),
    }
    return "".join(
        json.dumps({"question": name, "unknown" if value is None else "known": value or "gone"})
        + "\n"
        for name, value in known.items()
    )


def say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def main() -> None:
    if sys.argv[1] == "-I":
        is_asked = sys.argv[2].endswith("questions.py")
        sys.stdout.write(answers() if is_asked else json.dumps(FACTS))
        return
    how = HOW["FAKE_VLLM"]
    own = subprocess.Popen([sys.executable, "-c", STUBBORN])
    away = subprocess.Popen([sys.executable, "-c", STUBBORN], start_new_session=True)
    prefix = os.environ["HARNESS_LOAD_REPORT"]
    Path(prefix).with_name("pids").write_text(
        f"{os.getpid()} {own.pid} {away.pid}", encoding="ascii"
    )
    seen = {"environment": dict(os.environ), "cwd": str(Path.cwd()), "arguments": sys.argv[1:]}
    Path(prefix).with_name("seen.json").write_text(json.dumps(seen), encoding="utf-8")
    if how == "leak":
        say(f"the key is {os.environ['VLLM_API_KEY']}")
    say("INFO 11-23 01:00:00 [core.py:1] Initializing a V1 LLM engine, dtype=torch.bfloat16,")
    if how == "hang":
        signal.pause()
    if how == "slow":
        for step in range(10):
            time.sleep(0.3)
            say(f"Loading shard {step}")
    if how == "die":
        say(HOW["FAKE_LOG"])
        sys.exit(1)
    report = json.loads(HOW.get("FAKE_REPORT", json.dumps(REPORT)))
    if report is not None:
        Path(f"{prefix}.rank0.json").write_text(json.dumps(report), encoding="utf-8")
    say(HOW.get("FAKE_LOG", ""))
    ThreadingHTTPServer((option("--host"), int(option("--port"))), Handler).serve_forever()


if __name__ == "__main__":
    main()
