"""Serve several checkpoints, one after the other, from one vLLM process over /v1/completions.

    VLLM_PYTHON several.py PORT

A server of its own for each checkpoint takes a minute to import vLLM; this process imports it
once and loads the next checkpoint in seconds (POST /load {"model": DIR, "report": PREFIX}). It
runs in vLLM's environment, speaks the part of the completions protocol that lm-eval uses, and
answers whatever has arrived in a few milliseconds as one batch.
"""

import gc
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from vllm import LLM, RequestOutput, SamplingParams

GATHER_S = 0.02


class Job:
    """One request, and later its answer."""

    def __init__(self, path: str, body: Mapping[str, Any]) -> None:
        self.path, self.body = path, body
        self.answer: Mapping[str, Any] = {}
        self.done = threading.Event()


ARRIVED: "queue.Queue[Job]" = queue.Queue()


class Handler(BaseHTTPRequestHandler):
    """Hands requests to the one thread that may use the engine."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        """Say nothing: what went wrong is in the answer."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        job = Job(self.path, body)
        ARRIVED.put(job)
        job.done.wait()
        text = json.dumps(job.answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


class Engine:
    """The loaded checkpoint."""

    def __init__(self) -> None:
        self.llm: Any = None

    def load(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.llm is not None:
            self.llm.llm_engine.engine_core.shutdown()
            self.llm = None
            gc.collect()
        os.environ["HARNESS_LOAD_REPORT"] = body["report"]
        self.llm = LLM(
            model=body["model"],
            max_model_len=body["max_model_len"],
            enforce_eager=True,
            language_model_only=True,
            distributed_executor_backend="uni",
            enable_prefix_caching=False,
            disable_log_stats=True,
            max_logprobs=5,
            **body.get("arguments", {}),
        )
        return {"loaded": body["model"]}

    def complete(self, jobs: list[Job]) -> None:
        prompts, settings = [], []
        for job in jobs:
            body = job.body
            echo = bool(body.get("echo"))
            prompt = body["prompt"]
            tokens = prompt[0] if isinstance(prompt[0], list) else prompt
            prompts.append({"prompt_token_ids": tokens})
            settings.append(
                SamplingParams(
                    temperature=0,
                    max_tokens=max(body.get("max_tokens", 1), 1),
                    stop=body.get("stop") or None,
                    prompt_logprobs=1 if echo else None,
                    logprobs=1 if echo or body.get("logprobs") is not None else None,
                )
            )
        outputs = self.llm.generate(prompts, settings, use_tqdm=False)
        for job, output in zip(jobs, outputs, strict=True):
            num_read, num_made = len(output.prompt_token_ids), len(output.outputs[0].token_ids)
            job.answer = {
                "model": job.body["model"],
                "choices": [choice(output, echo=bool(job.body.get("echo")))],
                "usage": {"prompt_tokens": num_read, "completion_tokens": num_made},
            }
            job.done.set()


def choice(output: RequestOutput, *, echo: bool) -> Mapping[str, Any]:
    """Return one element of `choices`, as vLLM's server spells it."""
    answer = output.outputs[0]
    told: list[tuple[int, Any]] = []
    if echo:
        told += zip(output.prompt_token_ids, output.prompt_logprobs, strict=True)
    if answer.logprobs is not None:
        told += zip(answer.token_ids, answer.logprobs, strict=True)
    return {
        "index": 0,
        "text": answer.text,
        "finish_reason": answer.finish_reason,
        "prompt_token_ids": list(output.prompt_token_ids),
        "logprobs": logprobs(told) if told else None,
    }


def logprobs(told: list[tuple[int, Any]]) -> Mapping[str, Any]:
    """Spell log probabilities; the first token of a prompt has none."""
    return {
        "tokens": [f"token_id:{token}" for token, _ in told],
        "token_logprobs": [found and found[token].logprob for token, found in told],
        "top_logprobs": [
            found and {f"token_id:{t}": v.logprob for t, v in found.items()} for _, found in told
        ],
        "text_offset": [0] * len(told),
    }


def gathered(first: Job) -> list[Job]:
    """Return `first` and the completions that arrive just after it."""
    jobs, end = [first], time.monotonic() + GATHER_S
    while (left := end - time.monotonic()) > 0:
        try:
            jobs.append(ARRIVED.get(timeout=left))
        except queue.Empty:
            break
    return jobs


def main() -> None:
    engine = Engine()
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        job = ARRIVED.get()
        if job.path == "/load":
            job.answer = engine.load(job.body)
            job.done.set()
        else:
            engine.complete(gathered(job))


if __name__ == "__main__":
    main()
