"""A server without a model: it gives answers that were recorded, each after the same time.

What a client of it takes beside a plainer one is the client's own cost, for the server is never the
one that is waited for. It runs in a process of its own.
"""

import asyncio
import json
import multiprocessing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from aiohttp import web

Recorded = Mapping[str, bytes]
"""Body by request, as `key_of` has it."""


def key_of(path: str, payload: Mapping[str, Any]) -> str:
    """Return what tells a request from others."""
    return path + json.dumps(payload, sort_keys=True)


@contextmanager
def replaying(recorded: Recorded, seconds: float) -> Iterator[str]:
    """Give the URL of a server that answers each request after so many seconds."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(recorded, seconds, theirs), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()
        process.join()


def _serve(recorded: Recorded, seconds: float, told: Connection) -> None:
    asyncio.run(_serve_until_ended(recorded, seconds, told))


async def _serve_until_ended(recorded: Recorded, seconds: float, told: Connection) -> None:
    async def answer(request: web.Request) -> web.Response:
        body = recorded.get(key_of(request.path, await request.json()))
        await asyncio.sleep(seconds)
        if body is None:
            return web.Response(status=404)
        return web.Response(body=body, content_type="application/json")

    application = web.Application(client_max_size=1 << 30)
    application.router.add_post("/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    told.send(runner.addresses[0][1])
    await asyncio.Event().wait()
