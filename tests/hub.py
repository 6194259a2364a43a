"""A server that speaks the Hub's protocol as far as downloading a model or a data set needs.

Source: what huggingface_hub and datasets ask for: `/api/KIND/ID[/revision/R]`, `/tree/R`,
`/paths-info/R`, and `/[datasets/]ID/resolve/R/FILE` with the headers that name commit and contents.
"""

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "1f" * 20
_API = re.compile(
    r"/api/(models|datasets)/([^/]+/[^/]+?)(?:/(revision|tree|paths-info)/([^/]+)(/.*)?)?"
)
_FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


class Hub(ThreadingHTTPServer):
    """Serves `ROOT/models/OWNER/NAME` and `ROOT/datasets/OWNER/NAME`."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        self.server.asked.append(f"{self.command} {self.path}")
        found = _API.fullmatch(path)
        if found is not None:
            self._api(found)
            return
        found = _FILE.fullmatch(path)
        kind = "datasets" if found is not None and found[1] else "models"
        file = self.server.root / kind / found[2] / found[4] if found is not None else None
        if file is None or not file.is_file():
            self._refuse("EntryNotFound")
        else:
            self._file(file)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        found = _API.fullmatch(unquote(urlsplit(self.path).path))
        repo = self._repo(found) if found is not None else None
        if repo is None or found is None or found[3] != "paths-info":
            self._refuse("RepoNotFound")
            return
        is_json = "json" in self.headers.get("Content-Type", "")
        asked = json.loads(body)["paths"] if is_json else parse_qs(body)["paths"]
        self._json([_entry(repo, repo / one) for one in asked if (repo / one).exists()])

    def _api(self, found: re.Match[str]) -> None:
        repo = self._repo(found)
        if repo is None:
            self._refuse("RepoNotFound")
        elif found[3] == "tree":
            folder = repo / (found[5] or "/")[1:]
            deep = "recursive=true" in self.path.lower()
            paths = sorted(folder.rglob("*") if deep else folder.glob("*"))
            if folder.is_dir():
                self._json([_entry(repo, path) for path in paths])
            else:
                self._refuse("EntryNotFound")
        else:
            names = [p.relative_to(repo).as_posix() for p in sorted(repo.rglob("*")) if p.is_file()]
            self._json(
                {
                    "id": found[2],
                    "sha": COMMIT,
                    "private": False,
                    "gated": False,
                    "disabled": False,
                    "downloads": 0,
                    "likes": 0,
                    "tags": [],
                    "siblings": [{"rfilename": name} for name in names],
                }
            )

    def _repo(self, found: re.Match[str]) -> Path | None:
        repo = self.server.root / found[1] / found[2]
        return repo if repo.is_dir() else None

    def _file(self, file: Path) -> None:
        content = file.read_bytes()
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{_oid(content)}"', "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self._send(200, content, headers)
            return
        first, last = int(asked[1]), int(asked[2] or len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self._send(206, content[first : last + 1], headers)

    def _json(self, values: object) -> None:
        self._send(200, json.dumps(values).encode(), {"Content-Type": "application/json"})

    def _refuse(self, code: str) -> None:
        self._send(404, b"{}", {"X-Error-Code": code, "X-Error-Message": "no such thing"})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _oid(content: bytes) -> str:
    """Return git's name of a file's contents."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324  git's own


def _entry(repo: Path, path: Path) -> dict[str, object]:
    name = path.relative_to(repo).as_posix()
    if path.is_dir():
        return {"type": "directory", "oid": "0" * 40, "size": 0, "path": name}
    content = path.read_bytes()
    return {"type": "file", "oid": _oid(content), "size": len(content), "path": name}


@contextlib.contextmanager
def serving(root: Path) -> Iterator[Hub]:
    """Serve what lies in `root` until the context ends."""
    with Hub(root) as hub:
        thread = threading.Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
