"""Stands in for the Python of TensorRT-LLM's environment: answers the probe, serves as it does.

Its protocol is that of tensorrt_llm/serve in NVIDIA/TensorRT-LLM: it wants no key, names the model
after its folder, refuses words that it does not know, and gives log probabilities of what it
generates alone, whatever `echo` says. What it shall do is in the file FAKE_HOW beside it.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HOW = json.loads(Path(os.environ["FAKE_HOW"]).read_text(encoding="utf-8"))
FACTS: dict[str, object] = {
    "version": "1.2.0",
    "torch": "2.9.0",
    "python_version": "3.12.0",
    "gpus": ["NVIDIA H200 (sm_90)"],
    "algorithms": ["FP8", "NVFP4", "FP8_BLOCK_SCALES", "W4A16_MXFP4", "MIXED_PRECISION"],
}
WORDS = frozenset(
    """
    model prompt best_of echo frequency_penalty logit_bias logprobs max_tokens n presence_penalty
    seed stop stream suffix temperature top_p user use_beam_search top_k top_p_min min_p
    repetition_penalty length_penalty early_stopping stop_token_ids include_stop_str_in_output
    ignore_eos min_tokens skip_special_tokens spaces_between_special_tokens truncate_prompt_tokens
    return_context_logits detokenize add_special_tokens response_format
    """.split()  # noqa: SIM905 -- a name a line would be a screen
)
SUCCESSORS = {"a": "b", "b": "\n", "k": "k", "?": None}


class Handler(BaseHTTPRequestHandler):
    model: Path
    tokenizer: Any

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        if self.path == "/health":
            self.answer(HOW.get("health", 200), None)
        elif self.path == "/version":
            self.answer(200, {"version": "1.2.0"})
        elif self.path == "/v1/models":
            card = {"id": HOW.get("name", self.model.name), "owned_by": "tensorrt_llm"}
            self.answer(200, {"object": "list", "data": [card | {"object": "model"}]})
        else:
            self.answer(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        unknown = sorted(set(payload) - WORDS)
        if unknown or payload.get("top_k", 0) < 0:
            self.answer(400, {"error": f"[{{'type': 'extra_forbidden', 'loc': {unknown}}}]"})
            return
        (tokens,) = payload["prompt"]
        text, reason = generated(self.tokenizer.decode(tokens), payload)
        logprobs = {
            "text_offset": list(range(len(text))),
            "token_logprobs": [-0.1] * len(text),
            "tokens": list(text),
            "top_logprobs": [{letter: -0.1} for letter in text],
        }
        choice = {
            "index": 0,
            "text": text,
            "logprobs": logprobs if payload.get("logprobs") else None,
            "finish_reason": reason,
            "stop_reason": None,
        }
        usage = {"prompt_tokens": len(tokens), "completion_tokens": len(text)}
        self.answer(200, {"model": payload["model"], "choices": [choice], "usage": usage})

    def answer(self, status: int, values: object) -> None:
        body = b"" if values is None else json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def generated(prompt: str, payload: dict[str, Any]) -> tuple[str, str]:
    text, last = "", prompt[-1]
    for _ in range(payload["max_tokens"]):
        following = SUCCESSORS.get(last, "a")
        if following is None:
            return text, "stop"
        text, last = text + following, following
        for stop in payload.get("stop") or ():
            if stop in text:
                return text.split(stop)[0], "stop"
    return text, "length"


def option(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


def main() -> None:
    if sys.argv[1] == "-I":
        facts = FACTS | HOW.get("facts", {})
        sys.stdout.write(json.dumps(facts) if facts["version"] else "")
        return
    seen = {"environment": dict(os.environ), "cwd": str(Path.cwd()), "arguments": sys.argv[1:]}
    Path(os.environ["FAKE_HOW"]).with_name("seen.json").write_text(json.dumps(seen))
    sys.stderr.write("[TRT-LLM] [I] Loading the model\n")
    if "die" in HOW:
        sys.exit(HOW["die"])
    from tokenizers import Tokenizer  # noqa: PLC0415 -- the probe needs none

    Handler.model = Path(sys.argv[sys.argv.index("serve") + 1])
    Handler.tokenizer = Tokenizer.from_file(str(Handler.model / "tokenizer.json"))
    ThreadingHTTPServer((option("--host"), int(option("--port"))), Handler).serve_forever()


if __name__ == "__main__":
    main()
