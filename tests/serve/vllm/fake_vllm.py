"""Stands in for the Python of vLLM's environment: answers the probe, and serves as vLLM does.

FAKE_VLLM in the environment says how: `ready`, `slow`, `hang`, or `die` with the text FAKE_LOG.
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

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
FACTS = {
    "version": os.environ.get("FAKE_VERSION", "0.32.0"),
    "platform": os.environ.get("FAKE_PLATFORM", "cpu"),
    "torch": "2.13.0",
    "python_version": "3.11.0",
    "has_flashinfer": False,
    "gpus": [],
}
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
        name, length = option("--served-model-name"), int(option("--max-model-len"))
        listed = {"data": [{"id": name, "max_model_len": length}]}
        body = json.dumps(listed if self.path == "/v1/models" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def main() -> None:
    if sys.argv[1] == "-I":
        sys.stdout.write(json.dumps(FACTS))
        return
    how = os.environ["FAKE_VLLM"]
    own = subprocess.Popen([sys.executable, "-c", STUBBORN])
    away = subprocess.Popen([sys.executable, "-c", STUBBORN], start_new_session=True)
    Path("pids").write_text(f"{os.getpid()} {own.pid} {away.pid}", encoding="ascii")
    say("INFO 11-23 01:00:00 [core.py:1] Initializing a V1 LLM engine, dtype=torch.bfloat16,")
    if how == "hang":
        signal.pause()
    if how == "slow":
        for step in range(10):
            time.sleep(0.3)
            say(f"Loading shard {step}")
    if how == "die":
        say(os.environ["FAKE_LOG"])
        sys.exit(1)
    report = json.loads(os.environ.get("FAKE_REPORT", json.dumps(REPORT)))
    prefix = os.environ["HARNESS_LOAD_REPORT"]
    if report is not None:
        Path(f"{prefix}.rank0.json").write_text(json.dumps(report), encoding="utf-8")
    say(os.environ.get("FAKE_LOG", ""))
    ThreadingHTTPServer((option("--host"), int(option("--port"))), Handler).serve_forever()


if __name__ == "__main__":
    main()
