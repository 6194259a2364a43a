"""A server of OpenAI's whose wrong, cut and refused answers are known by the sum that is asked."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

KEY = "the-key-of-this-server"


class Answers(BaseHTTPRequestHandler):
    """Answers `Q: 54+39? A:`, or the chat that asks it."""

    server: "Answering"

    def log_message(self, *said: object) -> None:
        pass

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked)
        is_chat = "messages" in asked
        prompt = asked["messages"][-1]["content"] if is_chat else asked["prompt"]
        item = self.server.prompts.index(prompt)
        if self.headers["Authorization"] != f"Bearer {KEY}" or item in self.server.refused:
            self.send(400, {"error": {"message": "refused"}})
            return
        left, right = map(int, re.findall(r"\d+", prompt)[-2:])
        text = str(left + right + (item in self.server.wrong))
        choice: dict[str, Any] = {"index": 0}
        choice["finish_reason"] = "length" if item in self.server.cut else "stop"
        said = {"message": {"role": "assistant", "content": text}} if is_chat else {"text": text}
        usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
        self.send(200, {"model": "m", "choices": [choice | said], "usage": usage})

    def send(self, status: int, values: object) -> None:
        body = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Answering(ThreadingHTTPServer):
    """What is wrong is given as numbers of items."""

    def __init__(self, prompts: list[str]) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.prompts = prompts
        self.wrong: set[int] = set()
        self.cut: set[int] = set()
        self.refused: set[int] = set()
        self.asked: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def answering(prompts: list[str]) -> Iterator[Answering]:
    with Answering(prompts) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
