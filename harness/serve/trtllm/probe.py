"""Print what a Python environment knows of TensorRT-LLM as one JSON line; run by that Python.

Reads package metadata, one source file and the driver, and imports neither torch nor TensorRT-LLM,
which take a minute and need a GPU. Its first argument is the file that asks the driver, which the
probe of vLLM has. Standard library only.
"""

import ast
import json
import platform
import runpy
import sys
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

_NAMES = ("tensorrt_llm", "tensorrt-llm")
_ALGORITHMS = "tensorrt_llm/quantization/mode.py"


def main() -> int:
    """Print the facts, or say on stderr what is missing."""
    name = next((name for name in _NAMES if _version(name)), None)
    if name is None:
        sys.stderr.write("tensorrt_llm is not installed\n")
        return 2
    facts = {
        "version": version(name),
        "torch": _version("torch") or "unknown",
        "python_version": platform.python_version(),
        "gpus": runpy.run_path(sys.argv[1])["_gpus"](),
        "algorithms": _algorithms(Path(str(distribution(name).locate_file(_ALGORITHMS)))),
    }
    sys.stdout.write(json.dumps(facts) + "\n")
    return 0


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _algorithms(file: Path) -> list[str]:
    """Return the members of QuantAlgo, read and not imported; none where they are elsewhere."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError):
        return []
    return [
        target.id
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == "QuantAlgo"
        for statement in node.body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    ]


if __name__ == "__main__":
    sys.exit(main())
