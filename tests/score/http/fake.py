"""A server that speaks the completions and the chat protocol, answers as the tiny model does, and
fails on command.

It decodes prompts with the model's real tokenizer. What follows a letter is looked up in a table,
letter by letter, as in the model that the in-process tests use.
"""

import itertools
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

END = "<|end|>"
ALPHABET: Mapping[str, str] = {"a": "b", "b": "\n", "k": "k", "?": END}


@dataclass
class Script:
    """What the server does, and what it saw."""

    tokenizer: Any
    successors: Mapping[str, str]
    faults: dict[str, list[str]] = field(default_factory=dict)
    """By the prompt's text: what happens to its next requests; the last stays."""
    key: str | None = None
    models: list[dict[str, object]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    payloads: list[dict[str, Any]] = field(default_factory=list)
    delay_s: float = 0.0
    health: int = 200
    running: int = 0
    most_running: int = 0
    lock: Any = field(default_factory=threading.Lock)

    def fault(self, prompt: str) -> str:
        with self.lock:
            waiting = self.faults.get(prompt, [])
            return (waiting.pop(0) if len(waiting) > 1 else waiting[0]) if waiting else ""

    def generate(self, prompt: str, payload: Mapping[str, Any]) -> tuple[str, str]:
        text, last = "", prompt[-1]
        for _ in range(payload["max_tokens"]):
            last = self.successors.get(last, "a")
            if last == END:
                return text, "stop"
            text += last
            for stop in payload.get("stop", ()):
                if stop in text:
                    return text.split(stop)[0], "stop"
        return text, "length"


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    script: Script

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        if self.path == "/health":
            self.reply(self.script.health, {})
        elif self.path == "/v1/models" and self.allowed():
            self.reply(200, {"data": self.script.models})
        elif self.path == "/version":
            self.reply(200, {"version": "0.32.0"})

    def do_POST(self) -> None:
        script = self.script
        with script.lock:
            script.running += 1
            script.most_running = max(script.most_running, script.running)
        try:
            payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            time.sleep(script.delay_s)
            self.answer(payload)
        finally:
            with script.lock:
                script.running -= 1

    def allowed(self) -> bool:
        given = self.headers.get("Authorization", "")
        if self.script.key is not None and given != f"Bearer {self.script.key}":
            self.reply(401, {"error": {"message": f"wrong key: {given}"}})
            return False
        return True

    def answer(self, payload: dict[str, Any]) -> None:
        script = self.script
        chat = self.path == "/v1/chat/completions"
        tokens = [] if chat else payload["prompt"][0]
        prompt = payload["messages"][-1]["content"] if chat else script.tokenizer.decode(tokens)
        with script.lock:
            script.seen.append(prompt)
            script.payloads.append(payload)
        fault = script.fault(prompt)
        if fault.isdigit():
            echo = self.headers.get("Authorization", "")
            self.reply(int(fault), {"error": {"message": f"no, {echo}\nand more"}})
        elif fault == "drop":
            self.close_connection = True
        elif fault == "garbage":
            self.reply(200, b'{"choices": [')
        elif fault == "hang":
            time.sleep(2)
            self.reply(200, {})
        elif chat:
            self.reply(200, self.chat(prompt, payload))
        elif "prompt_logprobs" in payload and fault != "plain":
            self.reply(200, self.read(tokens, fault))
        elif payload.get("echo"):
            self.reply(200, self.echo(tokens, fault))
        else:
            self.reply(200, self.completion(prompt, payload, fault))

    def chat(self, prompt: str, payload: dict[str, Any]) -> object:
        text, reason = self.script.generate(prompt, payload)
        return {"choices": [{"message": {"content": text}, "finish_reason": reason}]}

    def completion(self, prompt: str, payload: dict[str, Any], fault: str) -> object:
        text, reason = self.script.generate(prompt, payload)
        values = [None if fault == "null" else -0.1] * len(text)
        count = len(payload["prompt"][0]) + (fault == "bos")
        return {
            "choices": [
                {"text": text, "finish_reason": reason, "logprobs": {"token_logprobs": values}}
            ],
            "usage": {"prompt_tokens": count},
        }

    def read(self, tokens: list[int], fault: str) -> object:
        """Answer as vLLM does: a table by token id for each place, with the token that is there."""
        places: list[object] = [None]
        for before, after in itertools.pairwise(tokens):
            letter = self.script.tokenizer.decode([before])
            best = self.script.tokenizer.encode(self.script.successors.get(letter, "a"))[0]
            other = -9999.0 if fault == "clamped" else -5.0
            places.append({str(after): {"logprob": other}} | {str(best): {"logprob": -0.1}})
        return {"choices": [{"text": "", "prompt_logprobs": places, "finish_reason": "length"}]}

    def echo(self, tokens: list[int], fault: str) -> object:
        letters = [self.script.tokenizer.decode([token]) for token in tokens]
        values: list[float | None] = [None]
        for before, after in itertools.pairwise(letters):
            values.append(-0.1 if self.script.successors.get(before, "a") == after else -5.0)
        tops = [None if v is None else {"x": v, "best": -0.1} for v in values]
        values = [None] * len(values) if fault == "null" else values
        logprobs = {"token_logprobs": [*values, -0.1], "top_logprobs": [*tops, {"x": -0.1}]}
        return {"choices": [{"logprobs": logprobs, "finish_reason": "length"}]}

    def reply(self, status: int, body: object) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


class Server(ThreadingHTTPServer):
    request_queue_size = 64
    daemon_threads = True

    def handle_error(self, *_: object) -> None: ...
