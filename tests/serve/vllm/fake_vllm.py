"""Stands in for the Python of vLLM's environment: answers the probe, and serves as vLLM does.

It is given no more of a test's environment than a real one. What it shall do is in the file
FAKE_HOW, which the fixture names, or in the variables of an image: FAKE_VLLM is `ready`, `slow`,
`hang`, `open` (asks for no key), `leak` (writes its key to its log), or `die` with FAKE_LOG.
FAKE_IMPORTS is what one that is begun ahead dies with, after FAKE_IMPORT_S seconds.
FAKE_DIES, FAKE_STALLS and FAKE_SALAD hold a part of the path of a model whose server dies, answers
nothing, or badly; FAKE_ROOM how many fit beside each other. Each start is noted in `starts`.
Its processes are as stubborn as can be: one ignores SIGTERM, one has left the session.
"""

import fcntl
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
_PLACES: list[object] = []
"""Open files whose locks this process holds."""
NOBODY = "no part of any path\n"
SERVER = """
import runpy, sys, time
sys.stderr.write(f"{{__name__}} is imported\\n")
if __name__ == "__main__":
    runpy.run_path({file!r}, run_name="__main__")
time.sleep(float({seconds!r}))
"""
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

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        tokens = asked["prompt"][0]
        if HOW.get("FAKE_STALLS", NOBODY) in option("--model"):
            signal.pause()
        is_salad = HOW.get("FAKE_SALAD", NOBODY) in option("--model")
        likely = -9.0 if is_salad else -0.5 - len(option("--model")) / 10000
        choice: dict[str, object] = {"index": 0, "text": " 1", "finish_reason": "stop"}
        choice["prompt_token_ids"] = tokens
        ours = [likely] * (len(tokens) - 1)
        if "prompt_logprobs" in asked:
            others = {"0": {"logprob": -0.1 if is_salad else -4.0}}
            read = [others | {str(t): {"logprob": likely}} for t in tokens[1:]]
            choice["prompt_logprobs"] = [None, *read]
        elif asked.get("echo"):
            tops = [{"x": value} for value in [*ours, -0.1]]
            choice["logprobs"] = {
                "token_logprobs": [None, *ours, -0.1],
                "top_logprobs": [None, *tops],
            }
        else:
            choice["logprobs"] = {"token_logprobs": [likely / 10]}
        usage = {"prompt_tokens": len(tokens), "completion_tokens": 1}
        self.answer(200, {"model": asked["model"], "choices": [choice], "usage": usage})

    def log_message(self, *_: object) -> None: ...

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


def note_start(pids: list[int]) -> None:
    """Add a line to the file of starts beside the one that says how."""
    if "FAKE_HOW" in os.environ:
        with Path(os.environ["FAKE_HOW"]).with_name("starts").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"model": option("--model"), "pids": pids}) + "\n")


def die_if_told() -> None:
    if HOW["FAKE_VLLM"] == "die" or HOW.get("FAKE_DIES", NOBODY) in option("--model"):
        say(HOW["FAKE_LOG"])
        sys.exit(1)
    if "FAKE_ROOM" in HOW and not found_room(int(HOW["FAKE_ROOM"])):
        say("torch.OutOfMemoryError: CUDA out of memory")
        sys.exit(1)


def found_room(servers: int) -> bool:
    """Take one of so many places, for as long as this process lives."""
    for number in range(servers):
        place = Path(os.environ["FAKE_HOW"]).with_name(f"place{number}").open("w")
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            place.close()
        else:
            _PLACES.append(place)
            return True
    return False


def wait_for_arguments() -> None:
    """Do as the real program does, which finds a package of vLLM's name and this file behind it."""
    module, folder = sys.argv[3:]
    packages = Path(os.environ["FAKE_HOW"]).with_name("packages")
    code = packages.joinpath(*module.split(".")).with_suffix(".py")
    code.parent.mkdir(parents=True, exist_ok=True)
    code.write_text(
        SERVER.format(file=__file__, seconds=HOW.get("FAKE_IMPORT_S", "0.1")), encoding="utf-8"
    )
    sys.path.append(str(packages))
    if "FAKE_IMPORTS" in HOW:
        time.sleep(float(HOW.get("FAKE_IMPORT_S", "0")))
        say(HOW["FAKE_IMPORTS"])
        sys.exit(1)
    from harness_vllm import waiting  # noqa: PLC0415 -- found where harness puts it

    sys.argv[1:] = [module]
    waiting.main([module, folder])


def say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def main() -> None:
    if sys.argv[1] == "-I":
        is_asked = sys.argv[2].endswith("questions.py")
        sys.stdout.write(answers() if is_asked else json.dumps(FACTS))
        return
    if sys.argv[2] == "harness_vllm.waiting":
        wait_for_arguments()
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
    note_start([os.getpid(), own.pid, away.pid])
    if how == "leak":
        say(f"the key is {os.environ['VLLM_API_KEY']}")
    say("INFO 11-23 01:00:00 [core.py:1] Initializing a V1 LLM engine, dtype=torch.bfloat16,")
    if how == "hang":
        signal.pause()
    if how == "slow":
        for step in range(10):
            time.sleep(0.3)
            say(f"Loading shard {step}")
    die_if_told()
    report = json.loads(HOW.get("FAKE_REPORT", json.dumps(REPORT)))
    if report is not None:
        Path(f"{prefix}.rank0.json").write_text(json.dumps(report), encoding="utf-8")
    say(HOW.get("FAKE_LOG", ""))
    ThreadingHTTPServer((option("--host"), int(option("--port"))), Handler).serve_forever()


if __name__ == "__main__":
    main()
