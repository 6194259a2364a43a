"""Quantize and export models with Model-Optimizer, each in a process of its own.

    python -m scripts.family_table.peer JOBS.json

It takes half a minute to import and patches libraries, so it is imported once, and each job is a
fork of that. A job names a `model`, the `qformat`, `batches` of token ids (a safetensors file),
`into` for the checkpoint and `result` for {"error", "seconds"}.
"""

import copy
import json
import os
import resource
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file

warnings.simplefilter("ignore")
import modelopt.torch.quantization as mtq  # noqa: E402 -- it warns at import
from modelopt.torch.export import export_hf_checkpoint  # noqa: E402

_PRESETS = {"nvfp4": mtq.NVFP4_DEFAULT_CFG, "fp8": mtq.FP8_DEFAULT_CFG}
_MEMORY = 10 << 30


def main() -> None:
    """Do the jobs that are not done."""
    torch.set_num_threads(1)  # as harness runs beside it: sums in another order are other sums
    for job in json.loads(Path(sys.argv[1]).read_bytes()):
        result = Path(job["result"])
        if result.exists():
            continue
        start = time.perf_counter()
        error = _in_a_fork(job, result.with_suffix(".error"))
        found = {"error": error, "seconds": round(time.perf_counter() - start, 1)}
        result.write_text(json.dumps(found), encoding="utf-8")


def _in_a_fork(job: dict[str, str], told: Path) -> str | None:
    """Run a job in a child of bounded memory; return what went wrong."""
    told.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        try:
            _export(job)
        except BaseException as error:  # noqa: BLE001 -- whatever stops it is what is asked
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(where.filename).name}:{where.lineno}"
            told.write_text(f"{type(error).__name__} at {place}: {error}", encoding="utf-8")
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status == 0:
        return None
    return told.read_text(encoding="utf-8") if told.exists() else f"ended with {status}"


def _export(job: dict[str, str]) -> None:
    config = json.loads((Path(job["model"]) / "config.json").read_bytes())
    model_class = getattr(transformers, config["architectures"][0])
    model = model_class.from_pretrained(job["model"], dtype=torch.bfloat16).eval()
    preset: dict[str, Any] = copy.deepcopy(_PRESETS[job["qformat"]])
    batches = load_file(job["batches"])

    def run(model: torch.nn.Module) -> None:
        with torch.inference_mode():
            for name in sorted(batches):
                model(input_ids=batches[name], use_cache=False)

    export_hf_checkpoint(mtq.quantize(model, preset, run), export_dir=job["into"])


if __name__ == "__main__":
    main()
