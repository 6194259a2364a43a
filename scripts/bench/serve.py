"""What vLLM makes of a checkpoint: load time, memory, finite answers, throughput by arithmetic.

    python -m scripts.bench.serve CHECKPOINT --vllm PYTHON --device cuda --record
    python -m scripts.bench.serve runs/canary-nvfp4-.../checkpoint --vllm .venv-vllm/bin/python

The checkpoint is served twice: with the arithmetic that this device would deploy, and with the one
that the checkpoint declares, which is emulated where the device has none of it; `--numerics` asks
for one of them alone. Prompts are random token ids, so models of random weights will do. Ends with
1 when a log probability is not finite.
"""

import argparse
import asyncio
import json
import logging
import math
import random
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from harness.artifacts import Endpoint, EngineSpec
from harness.serve import resolve_engine, serve
from scripts import ledger

_LOADED = re.compile(r"Model loading took ([\d.]+) GiB.*?([\d.]+) seconds")
_NUMERICS = ("deployed", "declared")
_TOP = 5


class Load(NamedTuple):
    """Requests of one kind, all sent at once."""

    name: str
    prompts: Sequence[Sequence[int]]
    max_tokens: int
    warm_up: Sequence[Sequence[int]] = ()
    """Asked before; none of the prompts, for servers remember what they have read."""


def main() -> int:
    """Serve, ask and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--vllm", help="Python of the environment that holds vLLM.")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--length", type=int, default=512, help="Tokens of a prompt.")
    parser.add_argument("--answer", type=int, default=64, help="Tokens of an answer.")
    parser.add_argument("--numerics", action="append", choices=_NUMERICS, help="Default: both.")
    parser.add_argument("--engine-arg", action="append", default=[], help="As harness takes it.")
    parser.add_argument("--record", action="store_true", help="Add a row to the ledger.")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")  # a server takes minutes to start
    values: dict[str, object] = {}
    rates: dict[str, list[float]] = {}
    for numerics in arguments.numerics or _NUMERICS:
        found, rates[numerics] = measure(arguments, numerics)
        for name, value in found.items():
            print(f"{numerics}: {name}: {value}", flush=True)
            values[f"{numerics}: {name}"] = value
    for index, load in enumerate(loads(arguments) if len(rates) == len(_NUMERICS) else ()):
        times = rates["deployed"][index] / rates["declared"][index]
        values[line := f"{load.name}: declared takes, of deployed's time"] = f"{times:.2f} times"
        print(f"{line}: {values[line]}", flush=True)
    if arguments.record:
        command = shlex.join(["python", "-m", "scripts.bench.serve", *sys.argv[1:]])
        ledger.append("A checkpoint in vLLM, by arithmetic", command=command, values=values)
    return 0 if all("not finite" not in str(value) for value in values.values()) else 1


def loads(arguments: argparse.Namespace) -> Iterator[Load]:
    """Yield what is asked: long prompts, then long answers."""
    config = json.loads((arguments.checkpoint / "config.json").read_text(encoding="utf-8"))
    vocabulary = int(config.get("text_config", config)["vocab_size"])
    draw = random.Random(0)  # noqa: S311 - no secret

    def prompts(length: int) -> list[list[int]]:
        return [
            [draw.randrange(vocabulary) for _ in range(length)]
            for _ in range(2 * arguments.prompts)
        ]

    for name, length, max_tokens in (
        ("prompts", arguments.length, 1),
        ("answers", 16, arguments.answer),
    ):
        drawn = prompts(length)
        half = arguments.prompts  # as many of them, for kernels are compiled by size
        yield Load(name, drawn[half:], max_tokens, drawn[:half])


def measure(arguments: argparse.Namespace, numerics: str) -> tuple[Mapping[str, str], list[float]]:
    """Return what one server did, and its tokens a second for each load."""
    engine = EngineSpec(
        name="vllm",
        numerics=numerics,
        device=arguments.device,
        dtype="auto",
        max_model_len=arguments.length + arguments.answer,
        place=arguments.vllm,
        arguments=tuple(arguments.engine_arg),
    )
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as records:
        folder = Path(records)
        with serve(resolve_engine(engine), arguments.checkpoint, records=folder) as endpoint:
            if not isinstance(endpoint, Endpoint):
                sys.exit("the engine answers in this process: there is nothing to measure")
            ready_s = time.perf_counter() - started
            log = (folder / "server.log").read_text(encoding="utf-8", errors="replace")
            values = {
                "kernels": ", ".join(f"{k} {v}" for k, v in endpoint.deployment.kernels.items()),
                "ready after": f"{ready_s:.0f} s",
            }
            if found := _LOADED.search(log):
                values["weights loaded"] = f"{found[2]} s, {found[1]} GiB"
            rates = []
            for load in loads(arguments):
                asyncio.run(_ask(endpoint, load._replace(prompts=load.warm_up)))
                seconds, num_tokens, finite = asyncio.run(_ask(endpoint, load))
                rates.append(num_tokens / seconds)
                words = "" if finite else "; a log probability is not finite"
                values[load.name] = f"{rates[-1]:.0f} tokens/s{words}"
    return values, rates


async def _ask(endpoint: Endpoint, load: Load) -> tuple[float, int, bool]:
    """Send all prompts; return seconds, tokens read or written, and whether all is finite."""
    timeout = aiohttp.ClientTimeout(total=None)
    started = time.perf_counter()
    headers = {"Authorization": f"Bearer {endpoint.api_key}"}
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
        answers = await asyncio.gather(
            *(_complete(session, endpoint, prompt, load.max_tokens) for prompt in load.prompts)
        )
    seconds = time.perf_counter() - started
    part = "prompt_tokens" if load.max_tokens == 1 else "completion_tokens"
    num_tokens = sum(int(answer["usage"][part]) for answer in answers)
    return seconds, num_tokens, all(_is_finite(answer) for answer in answers)


async def _complete(
    session: aiohttp.ClientSession, endpoint: Endpoint, prompt: Sequence[int], max_tokens: int
) -> Mapping[str, Any]:
    payload = {
        "model": endpoint.model,
        "prompt": prompt,
        "max_tokens": max_tokens,
        "temperature": 0,
        "logprobs": _TOP,
        "ignore_eos": True,
    }
    async with session.post(f"{endpoint.base_url}/v1/completions", json=payload) as response:
        if not response.ok:
            sys.exit(f"the server refused a prompt ({response.status}): {await response.text()}")
        answer: Mapping[str, Any] = await response.json()
        return answer


def _is_finite(answer: Mapping[str, Any]) -> bool:
    logprobs = answer["choices"][0]["logprobs"]
    found = [
        *logprobs["token_logprobs"],
        *(v for top in logprobs["top_logprobs"] for v in top.values()),
    ]
    return bool(found) and all(math.isfinite(value) for value in found)


if __name__ == "__main__":
    sys.exit(main())
