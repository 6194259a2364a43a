"""Print what an environment knows of SGLang as one JSON line; run by that environment's Python.

Reads package metadata, torch's version file and the driver, and imports neither torch nor SGLang.
Standard library only, beside vLLM's probe, whose facts about GPUs and torch are the same.
"""

import json
import platform
import runpy
import sys
from importlib.metadata import distribution, version
from pathlib import Path


def main() -> int:
    """Print the facts, or say on stderr what is missing."""
    common = runpy.run_path(str(Path(__file__).resolve().parents[1] / "vllm" / "probe.py"))
    if not common["_has"]("sglang"):
        sys.stderr.write("sglang is not installed\n")
        return 2
    installed, _, local = version("sglang").partition("+")
    facts = {
        "version": installed,
        "platform": common["_platform"]("sglang", local.split(".")),
        "torch": version("torch"),
        "python_version": platform.python_version(),
        "gpus": common["_gpus"](),
        "installed": _installed(),
    }
    sys.stdout.write(json.dumps(facts) + "\n")
    return 0


def _installed() -> str:
    """Return what changes when another SGLang is installed in the same place."""
    stat = Path(str(distribution("sglang").locate_file("sglang/version.py"))).stat()
    return f"{stat.st_ino}-{stat.st_mtime_ns}-{stat.st_size}"


if __name__ == "__main__":
    sys.exit(main())
