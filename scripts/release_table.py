"""Run the canary through a real server in every format, and print what each run decided.

    python -m scripts.release_table --out DIR [--vllm PYTHON] [--engine vllm] [--cases "A;B"]
        [--suite canary] [--record]
    python -m scripts.release_table --out DIR --engine sglang --sglang PYTHON [--jobs 4]

Each case is a whole `harness e2e` or `harness gate` with its own server for each arm (the
baseline is measured once and found again). The last cases serve a checkpoint without one expert
input scale with `--skip-verify`: none of them may end GO. With --jobs the cases after the first run
side by side on one GPU, so each server needs its part of the memory (--engine-arg). Rows go to
DIR/table.jsonl as they are known, so that a killed table keeps what it has; DIR/table.md is the
table.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
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
    deleted: str = ""
    """Ending of the routed experts' tensors that are deleted, such as `.input_scale`."""


_INPUT, _GLOBAL = ".input_scale", ".weight_scale_2"
CASES = (
    Case("nvfp4, declared", "nvfp4"),
    Case("nvfp4, deployed", "nvfp4", numerics="deployed"),
    Case("nvfp4_experts_only", "nvfp4_experts_only"),
    Case("w4a16_nvfp4", "w4a16_nvfp4"),
    Case("fp8", "fp8"),
    Case("nvfp4 + KV fp8", "nvfp4", kv="fp8"),
    Case("input scales deleted, declared", "nvfp4", deleted=_INPUT),
    Case("input scales deleted, deployed", "nvfp4", numerics="deployed", deleted=_INPUT),
)
SGLANG_CASES = (
    Case("nvfp4_experts_only, deployed", "nvfp4_experts_only", numerics="deployed"),
    Case("nvfp4_mlp_only, deployed", "nvfp4_mlp_only", numerics="deployed"),
    Case("fp8, deployed", "fp8", numerics="deployed"),
    Case("fp8 + KV fp8, deployed", "fp8", kv="fp8", numerics="deployed"),
    Case("mixed, deployed", "w4a16_nvfp4_fp8_attention", numerics="deployed"),
    Case("input scales deleted, deployed", "nvfp4", numerics="deployed", deleted=_INPUT),
    Case("global scales deleted, deployed", "nvfp4", numerics="deployed", deleted=_GLOBAL),
)
"""SGLang emulates nothing, so there is no other arithmetic than the deployed one."""


def typed() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vllm")
    parser.add_argument("--sglang")
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time, after the first")
    parser.add_argument("--engine", default="vllm")
    parser.add_argument("--image")
    parser.add_argument("--checkpoint", type=Path, help="to damage; all cases run at once then")
    parser.add_argument("--engine-arg", action="append", default=[], help="KEY=VALUE, repeatable")
    parser.add_argument("--suite", default="canary")
    parser.add_argument("--cases", default="", help="names, separated by ;")
    parser.add_argument("--record", action="store_true")
    return parser.parse_args()


def main() -> int:
    """Run the cases; fail where one ends as it must not."""
    arguments = typed()
    arguments.out.mkdir(parents=True, exist_ok=True)
    wanted = [name.strip() for name in arguments.cases.split(";") if name.strip()]
    known = SGLANG_CASES if arguments.engine == "sglang" else CASES
    at_once = arguments.checkpoint is not None
    first, *others = [case for case in known if not wanted or case.name in wanted]
    bad = 0
    if at_once:
        others = [first, *others]
    else:
        bad += keep(first, run(first, arguments), arguments)  # it measures the baseline
    with ThreadPoolExecutor(arguments.jobs) as pool:
        rows = pool.map(lambda case: run(case, arguments), others)
        bad += sum(keep(case, row, arguments) for case, row in zip(others, rows, strict=True))
    lines = (arguments.out / "table.jsonl").read_text(encoding="utf-8").splitlines()
    table = markdown([json.loads(line) for line in lines])
    (arguments.out / "table.md").write_text(table, encoding="utf-8")
    print(table)
    return min(bad, 1)


def keep(case: Case, row: Mapping[str, Any], arguments: argparse.Namespace) -> bool:
    """Write a row down; return whether it ended as it must not."""
    with (arguments.out / "table.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(markdown([dict(row)]), row["findings"], row["summary"], f"{row['seconds']} s", flush=True)
    if arguments.record:
        record(row, arguments)
    return not as_expected(case, row)


def run(case: Case, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one case through the command line and return its row."""
    engine = ["--engine", arguments.engine, "--numerics", case.numerics, "--json"]
    engine += ["--suite", arguments.suite]
    engine += ["--vllm", arguments.vllm] if arguments.vllm else []
    engine += ["--sglang", arguments.sglang] if arguments.sglang else []
    engine += ["--image", arguments.image] if arguments.image else []
    engine += [f"--engine-arg={argument}" for argument in arguments.engine_arg]
    run_dir = arguments.out / case.name.replace(", ", "-").replace(" ", "_")
    if case.deleted:
        checkpoint = faulty_checkpoint(arguments.out, case.deleted, arguments.checkpoint)
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
    if case.deleted:
        return row["decision"] in ("NO-GO", "INCONCLUSIVE") and row["exit"] in (4, 5)
    return row["exit"] == 0 or (case.numerics == "deployed" and row["exit"] == 5)  # noqa: PLR2004 - the contract's exit codes


def faulty_checkpoint(out: Path, deleted: str, given: Path | None) -> Path:
    """Return a copy of the NVFP4 checkpoint in which no expert has tensors of this ending."""
    runs = ("nvfp4-declared", "nvfp4-deployed", "nvfp4_experts_only-deployed")
    made = (given, *(out / run / "checkpoint" for run in runs))
    source = next(one for one in made if one is not None and one.exists())
    target = out / f"without{deleted}"
    if not target.exists():
        shutil.copytree(source, target)
        for shard in target.glob("*.safetensors"):
            tensors = load_file(shard)
            kept = {
                name: tensor for name, tensor in tensors.items() if not is_deleted(name, deleted)
            }
            save_file(kept, shard, metadata={"format": "pt"})
        index = target / "model.safetensors.index.json"
        if index.exists():
            values = json.loads(index.read_text(encoding="utf-8"))
            entries = values["weight_map"].items()
            values["weight_map"] = {n: f for n, f in entries if not is_deleted(n, deleted)}
            index.write_text(json.dumps(values), encoding="utf-8")
    return target


def is_deleted(name: str, ending: str) -> bool:
    """Return whether `name` is a tensor of a routed expert with this ending."""
    return ".experts." in name and name.endswith(ending)


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
