"""Drive `vllm_loads.py` through many checkpoints, whatever they do to the process."""

import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_LOADS = Path(__file__).with_name("vllm_loads.py")
_PLUGIN = Path(__file__).parents[2] / "harness" / "plugin"
_SECONDS = 240
_ENVIRONMENT = {
    "PYTHONPATH": str(_PLUGIN),
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}

Job = dict[str, Any]


def job_of(checkpoint: Path, result: Path, prompts: Sequence[Sequence[int]]) -> Job:
    """Return what `vllm_loads.py` is to do with a checkpoint."""
    report = result.with_suffix(".report")
    told = {"model": str(checkpoint), "result": str(result), "report": str(report)}
    return {**told, "prompts": prompts}


def load_all(jobs: Sequence[Job], python: Path, folder: Path) -> None:
    """Do every job that has no result; one that hangs or ends the process gets an error."""
    request = folder / "vllm_jobs.json"
    request.write_text(json.dumps(jobs), encoding="utf-8")
    while left := [job for job in jobs if not Path(job["result"]).exists()]:
        code = _run(left, [str(python), str(_LOADS), str(request)], folder / "vllm.log")
        for job in left:
            result = Path(job["result"])
            if result.with_suffix(".started").exists() and not result.exists():
                error = {"error": f"vLLM's process ended with {code}", "seconds": _SECONDS}
                result.write_text(json.dumps(error), encoding="utf-8")
                break


def _run(jobs: Sequence[Job], command: list[str], log: Path) -> int:
    """Run until all is done, the process ends, or one job takes too long."""
    with log.open("a", encoding="utf-8") as out:
        process = subprocess.Popen(command, env=os.environ | _ENVIRONMENT, stdout=out, stderr=out)
        done, since = 0, time.monotonic()
        while process.poll() is None:
            time.sleep(1)
            now = sum(Path(job["result"]).exists() for job in jobs)
            if now != done:
                done, since = now, time.monotonic()
            if time.monotonic() - since > _SECONDS:
                process.kill()
        return process.wait()


def rest_of(result: Path) -> str | None:
    """Return what a load left: tensors that nothing took, parameters that nothing filled."""
    path = Path(f"{result.with_suffix('.report')}.rank0.json")
    if not path.is_file():
        return "no load report"
    report = json.loads(path.read_bytes())
    untaken, unfilled = report["untaken"][:2], report["unfilled"][:2]
    if report["num_untaken"] or report["num_unfilled"]:
        return (
            f"{report['num_untaken']} tensors not taken {untaken}, "
            f"{report['num_unfilled']} parameters not filled {unfilled}"
        )
    return None


def default_python() -> Path:
    """Return the Python that `scripts/setup-vllm` has made."""
    return Path(os.environ.get("HARNESS_VLLM", Path(".venv-vllm") / "bin" / "python"))
