"""Ask an SGLang what it can do, in its own environment; run by that environment's Python.

Each answer is a line of JSON, as vLLM's questions.py prints them: `{"question": NAME, "known":
ANSWER}` or `{"question": NAME, "unknown": WHY}`. The exit status is 0 where SGLang could be
imported. Standard library and SGLang only.

Source: sglang 0.5.10.post1 to 0.5.23, srt/server_args.py, layers/quantization/__init__.py.
"""

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any

_SAMPLES = (("text", "a/b?"), ("json", "{}"), ("float", "1.5"), ("int", "1"))
"""What kind of value an option takes is found by what its type does not refuse, in this order."""


def main() -> int:
    """Print every answer."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # SGLang's log lines, and whatever its libraries print
    questions: dict[str, Callable[[], Any]] = {
        "version": lambda: importlib.import_module("sglang.version").__version__,
        "options": _options,
        "methods": _methods,
        "loaders": _loader,
    }
    whole = True
    for name, ask in questions.items():
        try:
            answer: dict[str, Any] = {"known": ask()}
        except BaseException as error:  # noqa: BLE001 -- a question may end in any way
            answer = {"unknown": f"{type(error).__name__}: {error}"[:300]}
            whole = whole and name != "options"
        answers.write(json.dumps({"question": name, **answer}) + "\n")
        answers.flush()
    return 0 if whole else 3


def _options() -> list[dict[str, object]]:
    parser = argparse.ArgumentParser()
    importlib.import_module("sglang.srt.server_args").ServerArgs.add_cli_args(parser)
    listed = [_option(action) for action in parser._actions]  # noqa: SLF001 -- no other way
    return [one for one in listed if one["names"]]


def _option(action: argparse.Action) -> dict[str, object]:
    names = [name[2:] for name in action.option_strings if name.startswith("--")]
    return {
        "names": names,
        "negations": [],
        "takes_value": action.nargs != 0,
        "kind": _kind(action),
        "choices": [str(choice) for choice in action.choices or () if choice is not None],
    }


def _kind(action: argparse.Action) -> str:
    accepts: Any = action.type
    for kind, sample in _SAMPLES if callable(accepts) else ():
        try:
            accepts(sample)
        except Exception:  # noqa: BLE001, S112 -- a type may refuse with any
            continue
        return kind
    return "text"


def _methods() -> list[str]:
    return sorted(importlib.import_module("sglang.srt.layers.quantization").QUANTIZATION_METHODS)


def _loader() -> dict[str, str]:
    """Return whether the place that the plugin hooks into is there."""
    module = importlib.import_module("sglang.srt.model_loader.loader")
    hooked = module.DefaultModelLoader.load_weights_and_postprocess
    importlib.import_module("sglang.srt.plugins.hook_registry")
    return {"auto": f"{module.DefaultModelLoader.__name__}.{hooked.__name__}"}


if __name__ == "__main__":
    sys.exit(main())
