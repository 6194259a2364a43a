"""Print what serving and scoring cost, and how much of it is harness itself.

    python -m scripts.serving_cost [--vllm PYTHON | --url URL] [--items N] [--rounds N] [--record]
    python -m scripts.serving_cost --vllm PYTHON --replay 0.18

Start-up is the time until the server answers. Then the canary's suite is scored, and the very
requests that this sent are sent again by a plain client (one coroutine a connection, as many
connections, no retries, nothing read but the bytes) to the same server, in turns; medians are
printed. Two numbers say what harness adds: the share of its time in which no request was under
way, and its throughput beside the plain client's. The first run is not counted: it warms the
server up. Then the smoke set is asked, and once more with every prompt by itself.

With `--replay S` scoring is measured once more on a server without a model, which gives the same
answers, each after S seconds: on few cores too, that is the client's own cost. `--record` adds a
row to the ledger.
"""

import argparse
import asyncio
import json
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
from harness.artifacts import Endpoint, EngineSpec, SmokeSet, Suite
from harness.recipe import load_smoke, load_suite
from harness.score import endpoint_of, probe, score
from harness.score.client import Connection, HttpReply
from harness.serve import resolve_engine, serve
from scripts import ledger
from scripts.replayed import key_of, replaying

CONCURRENT = 64
"""Connections to the server without a model, as many as to one on a GPU."""
GOAL = 0.05
"""Largest share of a run that harness may take."""


@dataclass
class Traffic:
    """The requests of one run."""

    sent: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    spans: list[tuple[float, float]] = field(default_factory=list)
    """When each was sent and answered, in seconds of one clock."""
    replies: list[tuple[str, Mapping[str, Any], Mapping[str, Any]]] = field(default_factory=list)
    """What was answered to which request."""

    def waiting_s(self) -> float:
        """Return the time in which at least one request was under way."""
        total, until = 0.0, 0.0
        for start, end in sorted(self.spans):
            total += max(0.0, end - max(start, until))
            until = max(until, end)
        return total

    def alone_s(self) -> float:
        """Return the time in which exactly one request was under way."""
        ends = [(start, 1) for start, _ in self.spans] + [(end, -1) for _, end in self.spans]
        total, running, since = 0.0, 0, 0.0
        for when, change in sorted(ends):
            total += when - since if running == 1 else 0.0
            running, since = running + change, when
        return total

    def most_at_once(self) -> int:
        """Return how many requests were under way at once."""
        return max(sum(s <= start < e for s, e in self.spans) for start, _ in self.spans)


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
        values = {**_measure(endpoint, suite, arguments.rounds), **_smoke(endpoint)}
        if arguments.replay is not None:
            values |= _replay(endpoint, suite, arguments)
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
    parser.add_argument("--replay", type=float, metavar="S", help="seconds of each answer")
    parser.add_argument("--record", action="store_true")
    return parser.parse_args()


def _replay(endpoint: Endpoint, suite: Suite, arguments: argparse.Namespace) -> Mapping[str, str]:
    """Measure the client with a server that has no model."""
    _, traffic = _score(endpoint, suite)
    bodies = {
        key_of(path, payload): json.dumps(body).encode() for path, payload, body in traffic.replies
    }
    with replaying(bodies, arguments.replay) as url:
        recorded = replace(endpoint, base_url=url, process=None, num_concurrent=CONCURRENT)
        found = _measure(recorded, suite, arguments.rounds)
    where = f"answers of no model, {arguments.replay:g} s each"
    return {f"{where}: {name}": value for name, value in found.items()}


def _smoke(endpoint: Endpoint) -> Mapping[str, str]:
    """Put the canary's smoke set to a server that is warm."""
    prompts = load_smoke("canary")
    by_itself = [replace(ask, expect=ask.expect or ("nothing",)) for ask in prompts.asks]
    seconds, traffic = _probed(endpoint, prompts)
    each_alone, _ = _probed(endpoint, replace(prompts, asks=tuple(by_itself)))
    alone = sum(bool(ask.expect) for ask in prompts.asks)
    return {
        "smoke: requests, by themselves": f"{len(traffic.sent)}, {alone}",
        "smoke: all of it": f"{seconds:.1f} s",
        "smoke, of its time with every prompt by itself": f"{seconds / each_alone:.2f}",
        "smoke: most at once": str(traffic.most_at_once()),
        "smoke: share of its time with one request alone": f"{traffic.alone_s() / seconds:.0%}",
    }


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


def _probed(endpoint: Endpoint, prompts: SmokeSet) -> tuple[float, Traffic]:
    """Return how long the smoke set took, and what was sent."""
    with _noting() as traffic:
        started = time.perf_counter()
        probe(endpoint, prompts, arm="candidate")
        return time.perf_counter() - started, traffic


def _score(endpoint: Endpoint, suite: Suite) -> tuple[float, Traffic]:
    """Return how long scoring took, and what was sent."""
    with tempfile.TemporaryDirectory() as scratch, _noting() as traffic:
        started = time.perf_counter()
        score(endpoint, suite, arm="baseline", into=Path(scratch))
        return time.perf_counter() - started, traffic


@contextmanager
def _noting() -> Iterator[Traffic]:
    """Note every request that is sent in the context."""
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
        if reply.body is not None:
            traffic.replies.append((path, payload or {}, reply.body))
        return reply

    with mock.patch.object(Connection, "once", once):
        yield traffic


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
