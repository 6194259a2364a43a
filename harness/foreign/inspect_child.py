"""The child process in which inspect_ai's own library reads its logs.

Run as a script by a Python with inspect_ai, which need not be ours. Prints JSON lines: of each log
what it says of the whole run, then each sample with what a comparison needs of it. Numbers that are
not finite, such as the mark of a sample without a score, are printed as texts.
"""

import json
import math
import resource
import sys
from collections.abc import Iterator
from typing import Any

NO_LIBRARY = 3
"""Exit code where inspect_ai cannot be imported."""
_UNUSED = {"events", "events_data", "store", "timelines", "error_retries"}
"""Parts of a sample, most of its bytes, that no comparison looks at."""


def main() -> None:
    """Read the logs that are named, within bounds of memory, work and what is printed."""
    memory_bytes, cpu_s, file_bytes, *paths = sys.argv[1:]
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_CPU, int(cpu_s))
    _limit(resource.RLIMIT_FSIZE, int(file_bytes))
    try:
        from inspect_ai.log import (  # noqa: PLC0415 -- not in our environment
            read_eval_log,
            read_eval_log_samples,
        )
    except ImportError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(NO_LIBRARY)
    _limit(resource.RLIMIT_AS, _memory() + int(memory_bytes))
    for path in paths:
        log = read_eval_log(path, header_only=True)
        _print({"log": log.model_dump(mode="json", exclude={"samples", "reductions"})})
        samples = read_eval_log_samples(
            path, all_samples_required=False, resolve_attachments="core", exclude_fields=_UNUSED
        )
        for sample in samples:
            _print({"sample": _shown(sample)})


def _limit(what: int, most: int) -> None:
    resource.setrlimit(what, (most, most))


def _memory() -> int:
    """Return the bytes of address space that this process has."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 -- as in reading/child
        return int(file.read().split()[0]) * resource.getpagesize()


def _print(values: object) -> None:
    sys.stdout.write(json.dumps(_finite(values), allow_nan=False) + "\n")


def _shown(sample: Any) -> dict[str, Any]:  # noqa: ANN401 -- inspect_ai's
    """Return what tells one sample, its answer and its scores; random ids are left out."""
    output = sample.output
    scores = sample.scores or {}
    return {
        "id": sample.id,
        "epoch": sample.epoch,
        "input": _input(sample.input),
        "choices": sample.choices,
        "target": sample.target,
        "prompt": list(_prompt(sample.messages)),
        "answer": output.completion if output is not None else "",
        "stop": str(output.stop_reason) if output is not None and output.choices else "",
        "error": sample.error.message if sample.error else None,
        "limit": str(sample.limit.type) if sample.limit else None,
        "invalid": sample.invalidation is not None,
        "metadata": sample.metadata,
        "scores": {name: score.model_dump(mode="json")["value"] for name, score in scores.items()},
        "edited": sorted(name for name, score in scores.items() if score.history),
        "tokens": sum(usage.output_tokens for usage in sample.model_usage.values()) or None,
    }


def _input(given: Any) -> object:  # noqa: ANN401 -- inspect_ai's
    return given if isinstance(given, str) else [[m.role, _content(m)] for m in given]


def _prompt(messages: Any) -> Iterator[list[object]]:  # noqa: ANN401 -- inspect_ai's
    """Yield who said what before the model did."""
    for message in messages:
        if message.role == "assistant" and message.source == "generate":
            return
        yield [message.role, _content(message)]


def _content(message: Any) -> object:  # noqa: ANN401 -- inspect_ai's
    content = message.content
    return (
        content if isinstance(content, str) else [part.model_dump(mode="json") for part in content]
    )


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value


if __name__ == "__main__":
    main()
