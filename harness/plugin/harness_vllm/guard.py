"""The API key guards every way into the server.

vLLM asks for it under `/v1` and a few more prefixes, and answers prompts without one elsewhere
(`/invocations`, `/tokenize`). Here `/health` alone stays open.

Source: `AuthenticationMiddleware` of vLLM 0.25.0 and 0.32.0.
"""

import importlib
import multiprocessing
import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from .adapters import MIDDLEWARE, find

_KEY = "VLLM_API_KEY"
_OPEN = frozenset({"/health"})
_GUARDED = "/v1"
_SERVERS = ("vllm.entrypoints.", "harness_vllm.waiting")
"""Programs that answer requests, or will; vLLM looks models up in programs of their own."""


def is_server_with_key() -> bool:
    """Return whether this process answers requests, and has been given a key to ask for."""
    program = getattr(sys.modules["__main__"], "__spec__", None)
    is_server = program is not None and program.name.startswith(_SERVERS)
    return is_server and multiprocessing.parent_process() is None and bool(os.environ.get(_KEY))


def guard_all_paths() -> None:
    """Let a server's middleware ask for its key everywhere; twice is as good as once.

    Raises:
        NotFoundError: this vLLM has it somewhere else.
    """
    middleware = find(MIDDLEWARE)
    if not hasattr(middleware.__call__, "harness_vllm"):
        middleware.__call__ = _asking_everywhere(middleware.__call__)


def _asking_everywhere(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def call(self: Any, scope: Any, receive: Any, send: Any) -> Any:
        headers = importlib.import_module("starlette.datastructures").Headers
        is_request = scope["type"] in ("http", "websocket")
        if (
            is_request
            and scope["path"] not in _OPEN
            and not self.verify_token(headers(scope=scope))
        ):
            scope = {**scope, "path": _GUARDED, "root_path": "", "method": "GET"}
        return original(self, scope, receive, send)

    call.harness_vllm = True  # type: ignore[attr-defined]  # marks that the work is done
    return call
