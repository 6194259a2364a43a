"""The API key guards every way into the server.

vLLM asks for it under `/v1` and a few more prefixes, and answers prompts without one elsewhere
(`/invocations`, `/tokenize`). Here `/health` alone stays open.

Source: `AuthenticationMiddleware` of vLLM 0.25.0 and 0.32.0.
"""

import importlib
import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

_KEY = "VLLM_API_KEY"
_OPEN = frozenset({"/health"})
_GUARDED = "/v1"
_SERVER = "vllm.entrypoints.openai.api_server"
"""What is run as the program; vLLM looks models up in programs of their own."""
_MODULES = (
    "vllm.entrypoints.serve.middleware.authenticate",
    "vllm.entrypoints.serve.utils.server_utils",
)
"""Where it is: in 0.32.0, in 0.25.0."""


def guard_all_paths() -> None:
    """Let a server's middleware ask for its key everywhere; twice is as good as once.

    Raises:
        ModuleNotFoundError: this vLLM has it somewhere else.
    """
    program = getattr(sys.modules["__main__"], "__spec__", None)
    if program is None or program.name != _SERVER or not os.environ.get(_KEY):
        return
    middleware = _middleware()
    if not hasattr(middleware.__call__, "harness_vllm"):
        middleware.__call__ = _asking_everywhere(middleware.__call__)


def _middleware() -> Any:
    for name in _MODULES[:-1]:
        try:
            return importlib.import_module(name).AuthenticationMiddleware
        except ModuleNotFoundError:
            continue
    return importlib.import_module(_MODULES[-1]).AuthenticationMiddleware


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
