"""Stands in for the Python of SGLang's environment: answers the probe, and serves as SGLang does.

The protocol is that of sglang 0.5.15: srt/entrypoints/http_server.py (health answers 503 until a
token was made; every path but /health and /health_generate wants the key; /v1/models names the
length; /server_info shows all of the arguments) and srt/managers/tokenizer_manager.py (/generate
with log probabilities of the prompt). What it shall do is in the file FAKE_HOW, which the fixture
names: FAKE_SGLANG is `ready`, `slow`, `hang`, `open` (asks for no key), `sick` (makes no token),
`wedged` (is alive and makes none), `other` (serves another name), `leak` (prints its arguments),
`die` or `child-died` with FAKE_LOG.
"""

import json
import math
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from fake_sglang_report import REPORT  # type: ignore[import-not-found]  # it runs as a script

HOW = json.loads(Path(os.environ["FAKE_HOW"]).read_text(encoding="utf-8"))
GPU = "NVIDIA H200 (sm_90)"
FACTS = {
    "version": HOW.get("FAKE_VERSION", "0.5.15"),
    "platform": "cuda",
    "torch": "2.11.0",
    "python_version": "3.12.0",
    "gpus": json.loads(HOW.get("FAKE_GPUS", json.dumps([GPU]))),
    "installed": "1",
}
OPTIONS = [
    {"names": names.split(), "negations": [], "takes_value": t, "kind": kind, "choices": choices}
    for names, t, kind, choices in (
        ("model-path model", True, "text", []),
        ("attention-backend", True, "text", ["triton", "fa3", "flashinfer"]),
        ("moe-runner-backend", True, "text", ["auto", "triton", "marlin"]),
        ("mem-fraction-static", True, "float", []),
        ("disable-cuda-graph", False, "text", []),
        ("forward-hooks", True, "json", []),
        ("tp-size tensor-parallel-size", True, "int", []),
        ("crash-dump-folder", True, "text", []),
    )
]
ANSWERS: dict[str, object] = {
    "version": FACTS["version"],
    "options": OPTIONS,
    "methods": ["fp8", "modelopt", "modelopt_fp4", "modelopt_fp8", "modelopt_mixed"],
    "loaders": {"auto": "DefaultModelLoader.load_weights_and_postprocess"},
}
OPEN = ("/health", "/health_generate")


def option(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


def key() -> str:
    text = Path(option("--config")).read_text(encoding="utf-8")
    return text.partition("api-key: ")[2].strip()


class Handler(BaseHTTPRequestHandler):
    key = ""
    how = "ready"

    def do_GET(self) -> None:
        if self.path not in OPEN and not self.is_allowed():
            self.answer(401, {"error": "Unauthorized"})
        elif self.path in OPEN:
            is_up = self.how != "sick" and not (self.how == "wedged" and "generate" in self.path)
            self.answer(200 if is_up else 503, None)
        elif self.path == "/v1/models":
            name = "another" if self.how == "other" else option("--served-model-name")
            length = int(option("--context-length"))
            one = {"id": name, "object": "model", "owned_by": "sglang", "max_model_len": length}
            self.answer(200, {"object": "list", "data": [one]})
        elif self.path == "/server_info":
            self.answer(200, self.server_info())
        else:
            self.answer(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.is_allowed():
            self.answer(401, {"error": "Unauthorized"})
        else:
            self.answer(200, generated(asked, HOW.get("FAKE_GENERATE", "")))

    def server_info(self) -> dict[str, object]:
        told: dict[str, object] = {
            "api_key": self.key,
            "version": FACTS["version"],
            "attention_backend": "triton",
            "moe_runner_backend": "auto",
            "fp4_gemm_runner_backend": "auto",
            "kv_cache_dtype": "auto",
            "internal_states": [{}],
        }
        told.update(json.loads(HOW.get("FAKE_INFO", "{}")))
        return told

    def is_allowed(self) -> bool:
        return self.how == "open" or self.headers.get("Authorization") == f"Bearer {self.key}"

    def answer(self, status: int, values: object) -> None:
        body = b"" if values is None else json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


def generated(asked: dict[str, object], fault: str) -> dict[str, object]:
    """An answer of /generate: every token has the probability of one in its number and one."""
    tokens = asked["input_ids"]
    assert isinstance(tokens, list)
    given: list[list[object]] = [[-math.log(token + 1), token, None] for token in tokens]
    given[0][0] = None
    if fault == "truncated":
        given = given[:-1]
    if fault == "others":
        given[1][1] = 7
    if fault == "infinite":
        given[1][0] = None
    tops = [None, *([[place[0], place[1], None], [-9.0, 0, None]] for place in given[1:])]
    meta = {
        "prompt_tokens": len(tokens),
        "completion_tokens": 1,
        "input_token_logprobs": given,
        "input_top_logprobs": tops,
    }
    if fault == "none":
        del meta["input_token_logprobs"]
    return {"text": "x", "output_ids": [0], "meta_info": meta}


def say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def tell() -> None:
    if not sys.argv[2].endswith("questions.py"):
        sys.stdout.write(json.dumps(FACTS))
        return
    known = ANSWERS | json.loads(HOW.get("FAKE_ANSWERS", "{}"))
    for name, value in known.items():
        what = {"unknown": "it broke"} if value is None else {"known": value}
        sys.stdout.write(json.dumps({"question": name, **what}) + "\n")


def misbehave(how: str) -> None:
    if how == "leak":
        say(f"[2026-07-11 10:00:00] server_args=ServerArgs(api_key='{Handler.key}')")
    if how == "hang":
        signal.pause()
    if how == "slow":
        for step in range(10):
            time.sleep(0.2)
            say(f"Loading safetensors checkpoint shards: {step}0%")
    if how in ("die", "child-died"):
        say(HOW["FAKE_LOG"])
        if how == "child-died":  # SGLang ends its own tree then
            say("[2026-07-11 10:00:01] Received sigquit from a child process.")
            os.kill(os.getpid(), signal.SIGKILL)
        sys.exit(1)


def main() -> None:
    if sys.argv[1] == "-I":
        tell()
        return
    how = HOW.get("FAKE_SGLANG", "ready")
    prefix = os.environ["HARNESS_LOAD_REPORT"]
    seen: dict[str, object] = {"environment": dict(os.environ), "arguments": sys.argv[1:]}
    seen |= {"cwd": str(Path.cwd()), "mode": Path(option("--config")).stat().st_mode & 0o777}
    Path(prefix).with_name("seen.json").write_text(json.dumps(seen), encoding="utf-8")
    Handler.key, Handler.how = key(), how
    say("[2026-07-11 10:00:00] Load weight begin. avail mem=139.12 GB")
    misbehave(how)
    report = json.loads(HOW.get("FAKE_REPORT", json.dumps(REPORT)))
    if report is not None:
        Path(f"{prefix}.rank0.json").write_text(json.dumps(report), encoding="utf-8")
    say("[2026-07-11 10:00:01] Using KV cache dtype: torch.float8_e4m3fn")
    say(HOW.get("FAKE_LOG", ""))
    ThreadingHTTPServer((option("--host"), int(option("--port"))), Handler).serve_forever()


if __name__ == "__main__":
    main()
