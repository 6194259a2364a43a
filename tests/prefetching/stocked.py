"""A Hub that holds the canary, a data set that a task asks, and a public calibration set."""

import json
import shutil
from pathlib import Path

import yaml

from harness import shipped
from tests.own_tasks import GENERATED

MODEL, DATA, TEXTS = "tester/bird", "tester/sums", "Salesforce/wikitext"
TASK = {
    **{
        key: value
        for key, value in GENERATED.items()
        if key not in {"dataset_kwargs", "fewshot_split"}
    },
    "task": "hub_sums",
    "dataset_path": DATA,
}
SUITE = {
    "version": 1,
    "name": "far",
    "max_model_len": 256,
    "apply_chat_template": False,
    "seed": 1234,
    "batch_size": 60,
    "confidence": 0.95,
    "max_truncated": 0.02,
    "smoke": "canary",
    "tasks": [
        {
            "name": "hub_sums",
            "tier": "critical",
            "metric": "exact_match",
            "filter": "plain",
            "items": 60,
            "margin": 0.2,
            "flip_rate": 0.02,
            "num_fewshot": 0,
            "chance": 0.0,
        }
    ],
}


def stock(hub: Path) -> None:
    """Put all of it where the Hub serves it."""
    shutil.copytree(shipped.canary() / "model", hub / "models" / MODEL)
    sums = hub / "datasets" / DATA
    sums.mkdir(parents=True)
    rows = [{"prompt": f"Q: {n}+21? A:", "answer": str(n + 21)} for n in range(10, 70)]
    _write(sums / "test.jsonl", rows)
    texts = hub / "datasets" / TEXTS
    texts.mkdir(parents=True)
    lines = (shipped.canary() / "calibration.jsonl").read_text(encoding="utf-8").splitlines()
    _write(texts / "train.jsonl", [json.loads(line) for line in lines])
    config = {"config_name": "wikitext-103-raw-v1", "data_files": "train.jsonl"}
    front = yaml.safe_dump({"configs": [config]})
    (texts / "README.md").write_text(f"---\n{front}---\n", encoding="utf-8")


def own_files(folder: Path) -> tuple[Path, Path]:
    """Write a suite and the folder of its task, as a user has them; return both."""
    tasks = folder / "tasks"
    tasks.mkdir(parents=True)
    (tasks / "hub_sums.yaml").write_text(yaml.safe_dump(TASK), encoding="utf-8")
    suite = folder / "far.yaml"
    suite.write_text(yaml.safe_dump(SUITE), encoding="utf-8")
    return suite, tasks


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
