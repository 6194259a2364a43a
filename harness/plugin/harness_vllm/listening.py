"""The store through which vLLM's processes meet listens on this machine's own address alone.

torch's TCPStore listens on every address of the machine, even where its users connect to 127.0.0.1,
and has no authentication. So it is given a socket that listens on 127.0.0.1 already.

Source: torch/distributed/rendezvous.py, `_create_c10d_store`.
"""

import importlib
import socket
from functools import wraps
from typing import Any

_OWN = ("127.0.0.1", "localhost", "::1")
_PARAMETERS = ("host_name", "port", "world_size", "is_master")
"""Of TCPStore, in their order."""


def listen_here_alone() -> None:
    """Give the stores that are begun in this process a socket of the address they are given."""
    rendezvous = importlib.import_module("torch.distributed.rendezvous")
    store = rendezvous.TCPStore
    if hasattr(store, "__wrapped__"):
        return

    @wraps(store, updated=())
    def begun(*arguments: Any, **options: Any) -> Any:
        given = dict(zip(_PARAMETERS, arguments, strict=False)) | options
        if (
            given.get("is_master")
            and given["host_name"] in _OWN
            and "master_listen_fd" not in given
        ):
            listening = _listen(given["host_name"], given["port"])
            number = listening.getsockname()[1]
            options = {**options, "master_listen_fd": listening.detach()}
            if len(arguments) > 1:
                arguments = (arguments[0], number, *arguments[2:])
            else:
                options["port"] = number
        return store(*arguments, **options)

    rendezvous.TCPStore = begun  # type: ignore[attr-defined]  # a module


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)
