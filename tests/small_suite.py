"""A suite for whole runs of the canary that take seconds."""

from pathlib import Path

import yaml

from harness import shipped


def write_small_suite(
    folder: Path, *, tasks: int = 2, items: int = 60, margin: float = 0.2
) -> Path:
    """Write some of the canary's critical tasks, few items, wide margins and no smoke set."""
    values = yaml.safe_load((shipped.suites() / "canary.yaml").read_text(encoding="utf-8"))
    critical = [task for task in values["tasks"] if task["tier"] == "critical"]
    for task in critical:
        task["items"], task["margin"] = items, margin
    values |= {"name": "quick", "tasks": critical[:tasks], "pooled_margin": None, "smoke": None}
    path = folder / "quick.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path
