"""Load models one after the other in one vLLM process, and say what each did.

    VLLM_PYTHON drive.py REQUEST.json RESPONSE.json

Runs in vLLM's environment, so it imports nothing of harness. A request is
{"loads": {NAME: MODEL}, "ask": {TASK: [{"prompt", "answer"}]}, "silent": [NAME], "sharing":
[NAME]}, the last for a vLLM that gives one expert's scale to all. The response has for each NAME
the load report, the share of right answers by task, the seconds that loading took and, where
loading failed, the error. Numbers of `numerics.py` are added for the quantized ones.
"""

import importlib
import importlib.util
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

from vllm import LLM, SamplingParams


def load(model: str, report: Path) -> LLM:
    os.environ["HARNESS_LOAD_REPORT"] = str(report)
    return LLM(
        model=model,
        distributed_executor_backend="uni",
        enforce_eager=True,
        language_model_only=True,
        max_model_len=256,
        seed=0,
    )


def answers(llm: LLM, items: list[dict[str, str]]) -> float:
    greedy = SamplingParams(temperature=0, max_tokens=16, stop=["\n"])
    outputs = llm.generate([item["prompt"] for item in items], greedy, use_tqdm=False)
    right: list[bool] = [
        output.outputs[0].text.strip() == item["answer"]
        for output, item in zip(outputs, items, strict=True)
    ]
    return sum(right) / len(right)


def one(name: str, model: str, request: dict[str, Any], folder: Path) -> dict[str, Any]:
    start = time.perf_counter()
    result: dict[str, Any] = {"error": None, "accuracy": {}, "numerics": {}}
    report = folder / name
    try:
        with sharing() if name in request["sharing"] else nullcontext():
            llm = load(model, report)
    except (AssertionError, RuntimeError, ValueError) as error:
        result["error"] = f"{type(error).__name__}: {error}"
    else:
        result["seconds"] = time.perf_counter() - start
        if name not in request["silent"]:
            result["accuracy"] = {t: answers(llm, items) for t, items in request["ask"].items()}
        if name in request["numerics"]:
            result["numerics"] = llm.apply_model(_numerics().compare)[0]
    written = Path(f"{report}.rank0.json")
    result["report"] = json.loads(written.read_bytes()) if written.is_file() else None
    return result


@contextmanager
def sharing() -> Iterator[None]:
    """Let experts compute with the scale of their layer's first, as the drill does it."""
    from vllm.model_executor.layers.quantization import modelopt  # noqa: PLC0415  # slow

    before = modelopt.process_fp8_weight_tensor_strategy_moe
    sys.path.append(str(Path(__file__).resolve().parents[2] / "harness" / "drill" / "in_vllm"))
    importlib.import_module("harness_drill_fault").register()
    try:
        yield
    finally:
        modelopt.process_fp8_weight_tensor_strategy_moe = before


def _numerics() -> ModuleType:
    """Import what lies beside this script: the plugin takes its folder off the path."""
    spec = importlib.util.spec_from_file_location(
        "numerics", Path(__file__).with_name("numerics.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["numerics"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(request_path: str, response_path: str) -> None:
    request = json.loads(Path(request_path).read_bytes())
    folder = Path(response_path).parent
    response = {name: one(name, model, request, folder) for name, model in request["loads"].items()}
    Path(response_path).write_text(json.dumps(response), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
