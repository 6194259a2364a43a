"""A Hub on this machine, as far as huggingface_hub needs one to make a repository and commit to it.

The paths and the fields are those that huggingface_hub 2.4 really uses: create, tree, the card's
front matter, preupload, LFS batch, the upload itself, commit. Contents are checked as the real one
does: an object is taken only under its own sha256.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import yaml

TOKEN = "hf_" + "s" * 34
LFS_FROM = 1 << 20
"""Bytes from which on this Hub takes a file by its sha256 only; those in `lfs` too."""


@dataclass
class State:
    """What the Hub holds, and what happened to it."""

    url: str = ""
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    commits: list[str] = field(default_factory=list)
    by_sha256: tuple[str, ...] = (".safetensors",)
    """Ends of names that are taken by sha256 whatever their size."""
    ignored: tuple[str, ...] = ()
    """Names that a .gitignore would leave out."""
    refuse_commit: int = 0
    """Status with which a commit is refused."""


class _Handler(BaseHTTPRequestHandler):
    state: State

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, values: object, status: int = 200) -> None:
        content = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if status >= 400 and isinstance(values, dict):
            self.send_header("X-Error-Message", str(values.get("error")))
        self.end_headers()
        self.wfile.write(content)

    def _is_known(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self._answer({"error": "Invalid credentials"}, 401)
        return False

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.state.requests.append(f"GET {path}")
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(tree|revision)/([^/]+).*", path)
        found = found or re.fullmatch(r"/api/models/([^/]+/[^/]+)()()", path)
        if not self._is_known():
            return
        if found is None or found[1] not in self.state.repos:
            self._answer({"error": "Repository not found"}, 404)
            return
        files = self.state.repos[found[1]]
        if found[2] == "tree":
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
                for name, content in sorted(files.items())
            ]
            self._answer(tree)
            return
        siblings = [{"rfilename": name} for name in sorted(files)]
        self._answer({"id": found[1], "sha": "0" * 40, "siblings": siblings})

    def do_PUT(self) -> None:
        path = urlsplit(self.path).path
        self.state.requests.append(f"PUT {path}")
        content, oid = self._body(), path.rsplit("/", 1)[-1]
        if hashlib.sha256(content).hexdigest() != oid:
            self._answer({"error": "another object than was announced"}, 400)
            return
        self.state.objects[oid] = content
        self._answer({})

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        self.state.requests.append(f"POST {path}")
        body = self._body()
        if not self._is_known():
            return
        if path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._validate(json.loads(body))
        elif "/preupload/" in path:
            self._preupload(json.loads(body))
        elif path.endswith("/info/lfs/objects/batch"):
            self._batch(json.loads(body))
        elif "/commit/" in path:
            self._commit(path.split("/commit/")[0].removeprefix("/api/models/"), body)
        else:
            self._answer({"error": f"no such path: {path}"}, 404)

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.state.repos:
            self._answer(
                {"error": "You already created this", "url": f"{self.state.url}/{name}"}, 409
            )
            return
        self.state.repos[name] = {".gitattributes": b""}
        self._answer({"url": f"{self.state.url}/{name}", "name": name})

    def _validate(self, asked: dict[str, Any]) -> None:
        front = asked["content"].split("---")[1]
        is_card = isinstance(yaml.safe_load(front), dict)
        errors = [] if is_card else [{"message": "no mapping"}]
        self._answer({"errors": errors, "warnings": []})

    def _preupload(self, asked: dict[str, Any]) -> None:
        def mode(file: dict[str, Any]) -> str:
            is_large = file["size"] >= LFS_FROM or file["path"].endswith(self.state.by_sha256)
            return "lfs" if is_large else "regular"

        files = [
            {
                "path": file["path"],
                "uploadMode": mode(file),
                "shouldIgnore": file["path"] in self.state.ignored,
            }
            for file in asked["files"]
        ]
        self._answer({"files": files})

    def _batch(self, asked: dict[str, Any]) -> None:
        def action(one: dict[str, Any]) -> dict[str, Any]:
            if one["oid"] in self.state.objects:
                return one
            href = f"{self.state.url}/objects/{one['oid']}"
            return {**one, "actions": {"upload": {"href": href}}}

        self._answer({"transfer": "basic", "objects": [action(one) for one in asked["objects"]]})

    def _commit(self, repo: str, body: bytes) -> None:
        if self.state.refuse_commit:
            error = f"no commit with {self.headers.get('Authorization')} today"
            self._answer({"error": error}, self.state.refuse_commit)
            return
        files = dict(self.state.repos[repo])
        for line in body.splitlines():
            said = json.loads(line)
            value = said["value"]
            if said["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif said["key"] == "lfsFile":
                files[value["path"]] = self.state.objects[value["oid"]]
            elif said["key"] == "header":
                self.state.commits.append(value["summary"])
        self.state.repos[repo] = files
        oid = hashlib.sha1(body, usedforsecurity=False).hexdigest()
        self._answer({"commitUrl": f"{self.state.url}/{repo}/commit/{oid}", "commitOid": oid})


@contextmanager
def hub() -> Iterator[State]:
    """Serve a Hub on a free port until the context ends."""
    state = State()
    handler = type("Handler", (_Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
