"""Run a real language model of 135 million weights through the tool, from quantization to verdict.

    scripts/real-language --out DIR [--engine reference|vllm] [--device cpu|cuda] [--items N]
                          [--cases NAMES] [--jobs N] [--record] [-- OPTIONS OF HARNESS]

The model, with its MLPs as fused experts, and the tasks are made in DIR from packages (sources.py);
each case (cases.py) is one run of `harness e2e` or `harness gate`. A run that was broken off goes
on. Exit 0 if each case ended as it must.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from scripts import ledger
from scripts.real_language import sources
from scripts.real_language.cases import CASES, Case, spoiled, write_bad_calibration
from scripts.real_language.model import make_dense, make_experts
from scripts.real_language.tasks import ASKED, make_tasks, write_suite

_WORDS = {0: "GO", 4: "NO-GO", 5: "INCONCLUSIVE", 2: "refused", 3: "failed"}
Row = dict[str, Any]


def main() -> int:
    """Make what is missing, run the cases, print the table."""
    arguments = _typed()
    out: Path = arguments.out.resolve()
    make(out, items=arguments.items)
    wanted = [name.strip() for name in arguments.cases.split(";") if name.strip()]
    first, *others = [case for case in CASES if not wanted or case.name in wanted]
    rows = [_said(run(first, out, arguments))]  # it measures the baseline
    with ThreadPoolExecutor(arguments.jobs) as pool:
        rows += pool.map(lambda case: _said(run(case, out, arguments)), others)
    print(text := table(rows))
    (out / f"{_engine_name(arguments)}.md").write_text(text, encoding="utf-8")
    if arguments.record:
        _record(rows, arguments)
    return int(any(row["ended"] not in row["must_end"] for row in rows))


def _said(row: Row) -> Row:
    print(json.dumps(row), flush=True)
    return row


def make(out: Path, *, items: int) -> None:
    """Make the model, the tasks and the suite, where they are not there."""
    fetched = out / "sources"
    if not (out / "dense").exists():
        make_dense(sources.weights(fetched), out / "dense")
    if not (out / "experts").exists():
        make_experts(out / "dense", out / "experts")
    if not (out / "tasks").exists():
        make_tasks(sources.dictionary(fetched), out / "tasks")
    write_suite(out / "real.yaml", items=items, tasks=Path("tasks"))
    write_bad_calibration(out)


def run(case: Case, out: Path, arguments: argparse.Namespace) -> Row:
    """Run one case through the command line and return its row."""
    folder = out / _engine_name(arguments) / _file_name(case.name)
    engine = ["--suite", str(out / "real.yaml"), "--json", *_engine(arguments)]
    started = time.monotonic()
    if case.spoil is None:
        options = ["--model", str(out / "experts"), "--qformat", case.qformat]
        options += ["--calib-size", str(arguments.calib_size)]
        options += ["--calib-data", str(out / case.calibration)] if case.calibration else []
        command = ["e2e", *options, *engine]
    else:
        correct = out / _engine_name(arguments) / _file_name(case.qformat) / "checkpoint"
        faulty = spoiled(case, correct, folder.with_name(f"{folder.name}-checkpoint"))
        command = ["gate", str(faulty), "--baseline", str(out / "experts"), *engine]
    done = subprocess.run(
        [sys.executable, "-m", "harness", *command, "--run-dir", str(folder)],
        stdout=subprocess.PIPE,
        check=False,
        text=True,
    )
    said = json.loads(done.stdout) if done.stdout.strip().startswith("{") else {}
    return {
        "case": case.name,
        "ended": _WORDS.get(done.returncode, f"exit {done.returncode}"),
        "must_end": case.must_end,
        "seconds": round(time.monotonic() - started, 1),
        **_found(folder, said),
    }


def _found(folder: Path, said: Mapping[str, Any]) -> Row:
    verdict = _read(folder / "verdict.json")
    scores = {
        task["task"]: (task["baseline"], task["candidate"])
        for task in verdict.get("tasks", ())
        if task["baseline"] is not None and task["candidate"] is not None
    }
    why = verdict.get("summary") or str(said.get("error") or said.get("message") or said)[:300]
    reasons = [*verdict.get("reason_codes", ()), *verdict.get("failed_checks", ())]
    return {"scores": scores, "reasons": reasons, "why": why}


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
    return found


def table(rows: list[Row]) -> str:
    """Return the rows in Markdown."""
    heads = ["candidate", *(name.removeprefix("real_") for name in ASKED), "ended", "reasons"]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for row in rows:
        scores = [_score(row["scores"].get(name)) for name in ASKED]
        ended = row["ended"] if row["ended"] in row["must_end"] else f"**{row['ended']}**"
        cells = [row["case"], *scores, ended, ", ".join(row["reasons"])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _score(pair: tuple[float, float] | None) -> str:
    return "-" if pair is None else " > ".join(f"{100 * value:.1f}" for value in pair)


def _record(rows: list[Row], arguments: argparse.Namespace) -> None:
    claim = f"A real language model of 135 M weights, {_engine_name(arguments)}: how cases end"
    values = {
        row["case"]: f"{row['ended']} ({', '.join(row['reasons'])}); "
        + "; ".join(f"{name} {_score(pair)}" for name, pair in row["scores"].items())
        for row in rows
    }
    command = f"scripts/real-language --out DIR {' '.join(_engine(arguments))}"
    ledger.append(claim, command=command, values=values)


def _engine_name(arguments: argparse.Namespace) -> str:
    return f"{arguments.engine}-{arguments.device}"


def _engine(arguments: argparse.Namespace) -> list[str]:
    where = ["--device", arguments.device]
    return ["--engine", arguments.engine, *where, *arguments.options]


def _file_name(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name).split())


def _typed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--engine", default="reference")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--items", type=int, default=1000, help="of each task; at most 1,200")
    parser.add_argument("--calib-size", type=int, default=128)
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time, after the first")
    parser.add_argument("--cases", default="", help="names, separated by ;")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("options", nargs="*", help="further options of harness")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
