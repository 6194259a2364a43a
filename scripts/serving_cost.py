"""Print what serving and scoring cost, and how much of it is harness itself.

    python -m scripts.serving_cost [--vllm PYTHON | --url URL] [--items N] [--rounds N] [--record]

Start-up is the time until the server answers. Then the canary's suite is scored, and the very
requests that this sent are sent again by a plain client (one coroutine a connection, as many
connections, no retries, nothing read but the bytes) to the same server, in turns; medians are
printed. Two numbers say what harness adds: the share of its time in which no request was under
way, and its throughput beside the plain client's. The first run is not counted: it warms the
server up. `--record` adds a row to the ledger.
"""

import argparse
import asyncio
import logging
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import aiohttp

from harness import shipped
from harness.artifacts import Endpoint, EngineSpec, Suite
from harness.recipe import load_suite
from harness.score import endpoint_of, score
from harness.score.client import Connection, HttpReply
from harness.serve import resolve_engine, serve
from scripts import ledger

GOAL = 0.05
"""Largest share of a run that harness may take."""


@dataclass
class Traffic:
    """The requests of one run."""

    sent: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    spans: list[tuple[float, float]] = field(default_factory=list)
    """When each was sent and answered, in seconds of one clock."""

    def waiting_s(self) -> float:
        """Return the time in which at least one request was under way."""
        total, until = 0.0, 0.0
        for start, end in sorted(self.spans):
            total += max(0.0, end - max(start, until))
            until = max(until, end)
        return total


def main() -> int:
    """Measure and print; fail when harness takes more than its goal."""
    arguments = _parse()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    suite = load_suite("canary")
    tasks = tuple(replace(t, items=min(t.items, arguments.items)) for t in suite.tasks)
    suite = replace(suite, tasks=tasks)
    started = time.perf_counter()
    with _server(arguments, suite) as endpoint:
        start_s = time.perf_counter() - started
        values = _measure(endpoint, suite, arguments.rounds)
    shown = {"start-up": f"{start_s:.1f} s", **values}
    for what, value in shown.items():
        print(f"{what:<40} {value}")
    if arguments.record:
        ledger.append(
            "What serving and scoring the canary over HTTP cost",
            command=shlex.join(["python", "-m", "scripts.serving_cost", *sys.argv[1:]]),
            values=shown,
        )
    return 0 if values["under 5 %"] == "yes" else 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--vllm", help="Python of the environment that holds vLLM")
    place.add_argument("--url", help="of a server that runs already")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--items", type=int, default=100, help="of each task, at most")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--record", action="store_true")
    return parser.parse_args()


@contextmanager
def _server(arguments: argparse.Namespace, suite: Suite) -> Iterator[Endpoint]:
    if arguments.url:
        yield endpoint_of(arguments.url, suite)
        return
    engine = EngineSpec(
        name="vllm",
        numerics="declared",
        device=arguments.device,
        dtype="auto",
        max_model_len=suite.max_model_len,
        place=arguments.vllm,
    )
    with serve(resolve_engine(engine), shipped.canary() / "model") as served:
        if not isinstance(served, Endpoint):
            sys.exit("the engine answers in this process: there is nothing to measure")
        yield served


def _measure(endpoint: Endpoint, suite: Suite, rounds: int) -> Mapping[str, str]:
    ours: list[float] = []
    idle: list[float] = []
    theirs: list[float] = []
    _, traffic = _score(endpoint, suite)
    for number in range(2 * rounds):
        # In turns, and each of the two first as often as the other.
        if number % 4 in (0, 3):
            seconds, traffic = _score(endpoint, suite)
            ours.append(seconds)
            idle.append(1 - traffic.waiting_s() / seconds)
        else:
            started = time.perf_counter()
            asyncio.run(_send_plainly(endpoint, traffic))
            theirs.append(time.perf_counter() - started)
    num_items = sum(task.items for task in suite.tasks)
    our_s, their_s = statistics.median(ours), statistics.median(theirs)
    share = statistics.median(idle)
    return {
        "connections": str(endpoint.num_concurrent),
        "items, requests": f"{num_items}, {len(traffic.sent)}",
        "harness": f"{num_items / our_s:.1f} items/s, {len(traffic.sent) / our_s:.1f} requests/s",
        "a plain client": (
            f"{num_items / their_s:.1f} items/s, {len(traffic.sent) / their_s:.1f} requests/s"
        ),
        "harness takes, of the plain client's time": f"{our_s / their_s:.1%}",
        "share without a request under way": f"{share:.2%}",
        "under 5 %": "yes" if share < GOAL else "no",
    }


def _score(endpoint: Endpoint, suite: Suite) -> tuple[float, Traffic]:
    """Return how long scoring took, and what was sent."""
    traffic = Traffic()
    send_once = Connection.once

    async def once(
        self: Connection,
        method: str,
        path: str,
        payload: Mapping[str, Any] | None,
        *,
        timeout_s: float,
    ) -> HttpReply:
        traffic.sent.append((path, payload or {}))
        start = time.perf_counter()
        reply = await send_once(self, method, path, payload, timeout_s=timeout_s)
        traffic.spans.append((start, time.perf_counter()))
        return reply

    with tempfile.TemporaryDirectory() as scratch, mock.patch.object(Connection, "once", once):
        started = time.perf_counter()
        score(endpoint, suite, arm="baseline", into=Path(scratch))
        return time.perf_counter() - started, traffic


async def _send_plainly(endpoint: Endpoint, traffic: Traffic) -> None:
    waiting = iter(traffic.sent)
    connector = aiohttp.TCPConnector(limit=endpoint.num_concurrent)
    headers = {"Authorization": f"Bearer {endpoint.api_key}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def work() -> None:
            for path, payload in waiting:
                async with session.post(endpoint.base_url + path, json=payload) as response:
                    response.raise_for_status()
                    await response.read()

        await asyncio.gather(*(work() for _ in range(endpoint.num_concurrent)))


if __name__ == "__main__":
    sys.exit(main())
