"""Run the canary through a real vLLM server in every format, and print what each run decided.

    python -m scripts.release_table --out DIR [--vllm PYTHON] [--engine vllm] [--cases "A;B"]
        [--suite canary] [--record]

Each case is a whole `harness e2e` or `harness gate` with its own server for each arm (the
baseline is measured once and found again). The last cases serve a checkpoint without one expert
input scale with `--skip-verify`: none of them may end GO. Rows go to DIR/table.jsonl as they are
known, so that a killed table keeps what it has; DIR/table.md is the table.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load_file, save_file

from scripts import ledger


class Case(NamedTuple):
    """One run."""

    name: str
    qformat: str
    kv: str = "none"
    numerics: str = "declared"
    faulty: bool = False
    """Whether every expert's input scale is deleted."""


CASES = (
    Case("nvfp4, declared", "nvfp4"),
    Case("nvfp4, deployed", "nvfp4", numerics="deployed"),
    Case("nvfp4_experts_only", "nvfp4_experts_only"),
    Case("w4a16_nvfp4", "w4a16_nvfp4"),
    Case("fp8", "fp8"),
    Case("nvfp4 + KV fp8", "nvfp4", kv="fp8"),
    Case("input scales deleted, declared", "nvfp4", faulty=True),
    Case("input scales deleted, deployed", "nvfp4", numerics="deployed", faulty=True),
)


def main() -> int:
    """Run the cases; fail where one ends as it must not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vllm")
    parser.add_argument("--engine", default="vllm")
    parser.add_argument("--image")
    parser.add_argument("--engine-arg", action="append", default=[], help="KEY=VALUE, repeatable")
    parser.add_argument("--suite", default="canary")
    parser.add_argument("--cases", default="", help="names, separated by ;")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    wanted = [name.strip() for name in arguments.cases.split(";") if name.strip()]
    bad = 0
    for case in CASES:
        if wanted and case.name not in wanted:
            continue
        row = run(case, arguments)
        bad += not as_expected(case, row)
        with (arguments.out / "table.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(markdown([row]), flush=True)
        if arguments.record:
            record(row, arguments)
    lines = (arguments.out / "table.jsonl").read_text(encoding="utf-8").splitlines()
    table = markdown([json.loads(line) for line in lines])
    (arguments.out / "table.md").write_text(table, encoding="utf-8")
    print(table)
    return min(bad, 1)


def run(case: Case, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one case through the command line and return its row."""
    engine = ["--engine", arguments.engine, "--numerics", case.numerics, "--json"]
    engine += ["--suite", arguments.suite]
    engine += ["--vllm", arguments.vllm] if arguments.vllm else []
    engine += ["--image", arguments.image] if arguments.image else []
    engine += [f"--engine-arg={argument}" for argument in arguments.engine_arg]
    run_dir = arguments.out / case.name.replace(", ", "-").replace(" ", "_")
    if case.faulty:
        checkpoint = faulty_checkpoint(arguments.out)
        command = ["gate", str(checkpoint), "--baseline", "canary", "--skip-verify"]
    else:
        command = ["e2e", "--model", "canary", "--qformat", case.qformat]
        command += ["--kv-cache-qformat", case.kv]
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "harness", *command, *engine, "--run-dir", str(run_dir)],
        stdout=subprocess.PIPE,
        env=os.environ | {"HARNESS_BASELINES": str(arguments.out / "baselines")},
        check=False,
        text=True,
    )
    seconds = time.monotonic() - started
    ended = json.loads(done.stdout) if done.stdout.strip().startswith("{") else {}
    return row_of(case, ended, done.returncode, seconds)


def row_of(case: Case, ended: Mapping[str, Any], code: int, seconds: float) -> dict[str, Any]:
    """Return what one run showed."""
    verdict, deployment = ended.get("verdict") or {}, ended.get("deployment") or {}
    tasks = {
        task["task"].removeprefix("canary_"): (task["baseline"], task["candidate"])
        for task in verdict.get("tasks", ())
    }
    return {
        "case": case.name,
        "exit": code,
        "decision": ended.get("decision"),
        "reason_codes": ended.get("reason_codes", []),
        "tasks": tasks,
        "kernels": deployment.get("kernels", {}),
        "computed": deployment.get("exercised", []),
        "engine": f"{deployment.get('engine')} {deployment.get('version')}",
        "device": deployment.get("device"),
        "loaded": deployment.get("loaded"),
        "findings": [finding["id"] for finding in deployment.get("findings", ())],
        "summary": verdict.get("summary") or ended.get("error") or str(ended.get("failure")),
        "seconds": round(seconds, 1),
    }


def as_expected(case: Case, row: Mapping[str, Any]) -> bool:
    """Return whether a run ended as it may: a fault never GO, a good format never NO-GO."""
    if case.faulty:
        return row["decision"] in ("NO-GO", "INCONCLUSIVE") and row["exit"] in (4, 5)
    return row["exit"] == 0 or (case.numerics == "deployed" and row["exit"] == 5)  # noqa: PLR2004 - the contract's exit codes


def faulty_checkpoint(out: Path) -> Path:
    """Return a copy of the NVFP4 checkpoint in which no expert has an input scale."""
    source, target = out / "nvfp4-declared" / "checkpoint", out / "deleted-scales"
    if not target.exists():
        shutil.copytree(source, target)
        for shard in target.glob("*.safetensors"):
            tensors = load_file(shard)
            kept = {name: tensor for name, tensor in tensors.items() if not is_deleted(name)}
            save_file(kept, shard, metadata={"format": "pt"})
        index = target / "model.safetensors.index.json"
        if index.exists():
            values = json.loads(index.read_text(encoding="utf-8"))
            entries = values["weight_map"].items()
            values["weight_map"] = {n: f for n, f in entries if not is_deleted(n)}
            index.write_text(json.dumps(values), encoding="utf-8")
    return target


def is_deleted(name: str) -> bool:
    """Return whether `name` is the input scale of a routed expert."""
    return ".experts." in name and name.endswith(".input_scale")


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a table."""
    names = list(dict.fromkeys(name for row in rows for name in row["tasks"]))
    head = ["checkpoint", "computed", "experts", *names, "verdict"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        scores = [score(row["tasks"].get(name)) for name in names]
        experts = row["kernels"].get("experts", "-")
        verdict = (
            f"{row['decision'] or 'exit ' + str(row['exit'])}: {', '.join(row['reason_codes'])}"
        )
        cells = [row["case"], ", ".join(row["computed"]) or "-", experts, *scores, verdict]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def score(pair: tuple[float, float] | None) -> str:
    """Spell the baseline's and the candidate's accuracy in percent."""
    if pair is None or None in pair:
        return "-"
    return f"{100 * pair[0]:.1f} > {100 * pair[1]:.1f}"


def record(row: Mapping[str, Any], arguments: argparse.Namespace) -> None:
    """Add a row to the ledger."""
    values = {
        "verdict": f"{row['decision']} (exit {row['exit']}): {', '.join(row['reason_codes'])}",
        "engine": f"{row['engine']} on {row['device']}",
        "kernels": ", ".join(f"{k} {v}" for k, v in sorted(row["kernels"].items())),
        "computed": ", ".join(row["computed"]),
        "findings": ", ".join(row["findings"]) or "none",
        **{name: score(pair) for name, pair in row["tasks"].items()},
        "summary": row["summary"],
    }
    ledger.append(
        f"The canary on a real {arguments.engine} server: {row['case']}",
        command="python -m scripts.release_table --out DIR --record",
        values=values,
    )


if __name__ == "__main__":
    sys.exit(main())
