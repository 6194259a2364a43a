"""A server that speaks the completions and the chat protocol, answers as the tiny model does, and
fails on command.

It decodes prompts with the model's real tokenizer. What follows a letter is looked up in a table,
letter by letter, as in the model that the in-process tests use. It answers as vLLM does, or as
TensorRT-LLM, which refuses words that it does not know and has no log probabilities of a prompt.
"""

import itertools
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from harness.score.proof import TEXTS

END = "<|end|>"
ALPHABET: Mapping[str, str] = {"a": "b", "b": "\n", "k": "k", "?": END}


@dataclass
class Script:
    """What the server does, and what it saw."""

    tokenizer: Any
    successors: Mapping[str, str]
    faults: dict[str, list[str]] = field(default_factory=dict)
    """By the prompt's text: what happens to its next requests; the last stays."""
    always: str = ""
    """What happens to every request."""
    parses: str = ""
    """What ends the thoughts that it takes out of chats, as a server with a reasoning parser."""
    answers_proof: bool = True
    """Whether it answers the prompts that a server is proven by as it should, whatever else."""
    words: frozenset[str] = frozenset()
    """Of a request that it knows; any where there are none."""
    version: str = "0.32.0"
    name: str = "tiny"
    """Of the model, as its answers have it."""
    key: str | None = None
    models: list[dict[str, object]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    payloads: list[dict[str, Any]] = field(default_factory=list)
    at_once: list[int] = field(default_factory=list)
    """With each payload, how many requests were under way."""
    delay_s: float = 0.0
    health: int = 200
    running: int = 0
    most_running: int = 0
    lock: Any = field(default_factory=threading.Lock)
    arrived: Any = field(default_factory=threading.Condition)
    waiting: list[list[int]] = field(default_factory=list)

    def is_proof(self, prompt: str) -> bool:
        return any(text.startswith(prompt) or prompt == text for text in TEXTS)

    def exchanged(self, tokens: list[int]) -> list[int]:
        """Return the prompt of the request that came together with this one."""
        with self.arrived:
            place = len(self.waiting)
            self.waiting.append(tokens)
            self.arrived.notify_all()
            self.arrived.wait_for(lambda: len(self.waiting) > (place ^ 1), timeout=1)
            return self.waiting[place ^ 1] if len(self.waiting) > (place ^ 1) else tokens

    def parsed(self, text: str) -> dict[str, object]:
        thoughts, end, answer = text.partition(self.parses) if self.parses else ("", "-", text)
        return {"content": answer if end else None, "reasoning": thoughts or None}

    def fault(self, prompt: str) -> str:
        if self.is_proof(prompt) and self.answers_proof:
            return ""
        if self.always:
            return self.always
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
            self.reply(200, {"version": self.script.version})
        elif self.path in {"/server_info", "/get_server_info"}:
            self.reply(404, {"detail": "Not Found"})

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
        tokens = payload.get("input_ids") or payload.get("prompt", [[]])[0]
        prompt = payload["messages"][-1]["content"] if chat else script.tokenizer.decode(tokens)
        fault = script.fault(prompt)
        if not script.is_proof(prompt):
            with script.lock:
                script.seen.append(prompt)
                script.payloads.append(payload)
                script.at_once.append(script.running)
        unknown = sorted(set(payload) - script.words)
        if script.words and unknown:
            self.reply(400, {"error": f"[{{'type': 'extra_forbidden', 'loc': {unknown}}}]"})
        elif fault == "NaN, which is no JSON" and "logprobs" in payload:
            words = "Out of range float values are not JSON compliant"
            self.reply(400, {"error": {"message": words}})
        elif fault in BROKEN:
            BROKEN[fault](self)
        elif fault.isdigit():
            echo = self.headers.get("Authorization", "")
            self.reply(int(fault), {"error": {"message": f"no, {echo}\nand more"}})
        elif chat:
            self.reply(200, self.chat(prompt, payload, fault))
        else:
            self.reply(200, self.completed(tokens, payload, fault))

    def completed(self, tokens: list[int], payload: dict[str, Any], fault: str) -> object:
        if self.path == "/generate":
            return natively(self.read(tokens, fault), tokens, fault)
        if "prompt_logprobs" in payload and fault != "plain":
            return self.read(tokens, fault)
        return self.completion(tokens, payload, fault)

    def chat(self, prompt: str, payload: dict[str, Any], fault: str) -> object:
        if fault == "answers of another prompt":
            prompt = "z" * 20
        text, reason = self.script.generate(prompt, self.budgeted(payload, fault))
        body: dict[str, Any] = {
            "model": self.script.name,
            "choices": [{"message": self.script.parsed(text), "finish_reason": reason}],
            "usage": {
                "prompt_tokens": len(prompt) + 8,
                "completion_tokens": len(text) + (reason == "stop"),
            },
        }
        if payload.get("logprobs"):
            letters = [*text, *([END] if reason == "stop" else [])]
            content = [{"token": letter, "logprob": -0.1} for letter in letters]
            body["choices"][0]["logprobs"] = {"content": content}
        FAULTS.get(fault, unchanged)(body)
        return body

    def completion(self, tokens: list[int], payload: dict[str, Any], fault: str) -> object:
        tokenizer = self.script.tokenizer
        if fault == "answers of another prompt":
            tokens = tokenizer.encode("z" * (len(tokens) // 2 + 1))
        if fault == "answers of one another":
            tokens = self.script.exchanged(tokens)
        prompt = tokenizer.decode(tokens)
        text, reason = self.script.generate(prompt, self.budgeted(payload, fault))
        # vLLM counts the token that ended an answer, and has a log probability of it.
        num_generated = len(text) + (reason == "stop")
        values: list[float | None] = [-0.1] * num_generated
        tops: list[object] = [{"x": -0.1}] * num_generated
        if payload.get("echo") and not self.script.words:
            before, likeliest = self.scores_of(tokens)
            text, values, tops = prompt + text, [*before, *values], [*likeliest, *tops]
        body: dict[str, Any] = {
            "model": self.script.name,
            "choices": [
                {
                    "text": text,
                    "finish_reason": reason,
                    "logprobs": {"token_logprobs": values, "top_logprobs": tops},
                }
            ],
            "usage": {
                "prompt_tokens": len(tokens) + (fault == "bos"),
                "completion_tokens": num_generated,
            },
        }
        if payload.get("return_token_ids"):
            body["choices"][0]["prompt_token_ids"] = tokens
        if payload.get("echo") or fault not in OF_ECHO:
            FAULTS.get(fault, unchanged)(body)
        return body

    def budgeted(self, payload: dict[str, Any], fault: str) -> dict[str, Any]:
        if fault != "ignores max_tokens":
            return payload
        return payload | {"max_tokens": payload["max_tokens"] + 50, "stop": ()}

    def read(self, tokens: list[int], fault: str) -> dict[str, Any]:
        """Answer as vLLM does: a table by token id for each place, with the token that is there."""
        places: list[object] = [None]
        for before, after in itertools.pairwise(tokens):
            letter = self.script.tokenizer.decode([before])
            best = self.script.tokenizer.encode(self.script.successors.get(letter, "a"))[0]
            other = -9999.0 if fault == "clamped" else -5.0
            places.append({str(after): {"logprob": other}} | {str(best): {"logprob": -0.1}})
        return {"choices": [{"text": "", "prompt_logprobs": places, "finish_reason": "length"}]}

    def scores_of(self, tokens: list[int]) -> tuple[list[float | None], list[object]]:
        """Return the log probabilities of a prompt's tokens, and the likeliest at each place."""
        letters = [self.script.tokenizer.decode([token]) for token in tokens]
        values: list[float | None] = [None]
        for before, after in itertools.pairwise(letters):
            values.append(-0.1 if self.script.successors.get(before, "a") == after else -5.0)
        return values, [None if v is None else {"x": v, "best": -0.1} for v in values]

    def break_off(self) -> None:
        """End the connection without a word."""
        self.close_connection = True

    def reset(self) -> None:
        """End it so that the other side sees a reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def hang(self) -> None:
        """Say nothing for longer than anybody waits."""
        time.sleep(2)
        self.reply(200, {})

    def reply(self, status: int, body: object) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


def natively(read: dict[str, Any], tokens: list[int], fault: str) -> object:
    """Answer as SGLang's /generate does: a list for each place, null for what is not finite."""
    values: list[list[object]] = [[None, tokens[0], None]]
    tops: list[object] = [None]
    for token, place in zip(tokens[1:], read["choices"][0]["prompt_logprobs"][1:], strict=True):
        own = place[str(token)]["logprob"]
        values.append([None if fault == "clamped" and own < -999 else own, token, None])
        tops.append([[one["logprob"], int(name), None] for name, one in place.items()])
    if fault == "plain":
        return {"text": "", "meta_info": {"prompt_tokens": len(tokens)}}
    if fault == "short":
        values, tops = values[:-1], tops[:-1]
    if fault == "others":
        values[1][1] = int(tokens[1]) + 1
    return {"text": "", "meta_info": {"input_token_logprobs": values, "input_top_logprobs": tops}}


def unchanged(_: dict[str, Any]) -> None: ...


def first_choice(body: dict[str, Any]) -> dict[str, Any]:
    choice: dict[str, Any] = body["choices"][0]
    return choice


def without_prompt_logprobs(body: dict[str, Any]) -> None:
    for name, values in first_choice(body)["logprobs"].items():
        first_choice(body)["logprobs"][name] = values[-1:]


def without_first_logprob(body: dict[str, Any]) -> None:
    for name, values in first_choice(body)["logprobs"].items():
        first_choice(body)["logprobs"][name] = values[1:]


def without_echo(body: dict[str, Any]) -> None:
    without_prompt_logprobs(body)
    first_choice(body)["text"] = first_choice(body)["text"][-1:]


def with_other_tokens(body: dict[str, Any]) -> None:
    first_choice(body)["text"] = first_choice(body)["text"].swapcase()


def with_logprob(value: float | None) -> Callable[[dict[str, Any]], None]:
    def put(body: dict[str, Any]) -> None:
        values = first_choice(body)["logprobs"].get("token_logprobs")
        if values is not None:
            first_choice(body)["logprobs"]["token_logprobs"] = [value] * len(values)
        for entry in first_choice(body)["logprobs"].get("content", ()):
            entry["logprob"] = value

    return put


FAULTS: Mapping[str, Callable[[dict[str, Any]], None]] = {
    "wrong model": lambda body: body.update(model="another"),
    "no model": lambda body: body.pop("model"),
    "no log probabilities of the prompt": without_prompt_logprobs,
    "truncated log probabilities": without_first_logprob,
    "no log probabilities": lambda body: first_choice(body).pop("logprobs"),
    "no names of tokens": lambda body: first_choice(body)["logprobs"].update(
        content=[
            {"logprob": entry["logprob"]} for entry in first_choice(body)["logprobs"]["content"]
        ]
    ),
    "echo ignored": without_echo,
    "wrong tokens": with_other_tokens,
    "no finish_reason": lambda body: first_choice(body).pop("finish_reason"),
    "two answers": lambda body: body["choices"].append(body["choices"][0]),
    "no usage": lambda body: body.pop("usage"),
    "null": with_logprob(None),
    "NaN": with_logprob(float("nan")),
    "above 0": with_logprob(0.7),
}
"""What is done to an answer before it is sent."""
OF_ECHO = {
    "no log probabilities of the prompt",
    "truncated log probabilities",
    "echo ignored",
    "wrong tokens",
}
"""Those that only log probabilities of a prompt suffer from."""

HTML = b"<!DOCTYPE html><html><body><h1>It works!</h1></body></html>"
BROKEN: Mapping[str, Callable[[Handler], None]] = {
    "drop": Handler.break_off,
    "reset": Handler.reset,
    "hang": Handler.hang,
    "garbage": lambda handler: handler.reply(200, b'{"choices": ['),
    "HTML": lambda handler: handler.reply(200, HTML),
    "huge": lambda handler: handler.reply(200, b" " * (3 << 20)),
}
"""What comes in the place of an answer."""


class Server(ThreadingHTTPServer):
    request_queue_size = 64
    daemon_threads = True

    def handle_error(self, *_: object) -> None: ...
