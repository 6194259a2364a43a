"""Run the canary on every vLLM that is named, one after the other, and print what worked on which.

    python -m scripts.version_table --out DIR [--platform cpu] [--record] VERSION...

For each version: `scripts/setup-vllm PLATFORM --version V` into DIR/V, which adapters of the plugin
it has a place for, then whole runs on a real server: NVFP4 and FP8 to their verdicts, and the NVFP4
checkpoint without one expert input scale, which may never end GO. What is known of a version is
kept in DIR/V.json and not asked again; a table that was killed goes on where it was. A version
whose environment is there already is used as it is: DIR/V may be a link.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts import ledger, release_table

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "harness" / "plugin"
CASES = tuple(
    case
    for case in release_table.CASES
    if case.name in {"nvfp4, declared", "fp8", "input scales deleted, declared"}
)
_HEAD = ("vLLM", "torch", "adapters missing", "bf16 baseline", "nvfp4", "fp8", "scales deleted")
Facts = dict[str, Any]


def main() -> int:
    """Print the table; fail where a run ended as it must not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("versions", nargs="+", help="Such as 0.31.0.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--platform", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--suite", default="canary")
    parser.add_argument("--only-table", action="store_true", help="Print what is known.")
    parser.add_argument("--record", action="store_true", help="Add a row to the ledger.")
    arguments = parser.parse_args()
    out: Path = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    table = {}
    for version in arguments.versions:
        path = out / f"{version}.json"
        known: Facts = json.loads(path.read_bytes()) if path.exists() else {}
        if not arguments.only_table:
            _find_out(version, known, path, arguments)
        table[version] = known
    print(markdown(table))
    if arguments.record:
        ledger.append(
            f"The canary on other versions of vLLM ({arguments.platform})",
            command="python -m scripts.version_table --out DIR --record VERSION...",
            values={version: _in_words(facts) for version, facts in table.items()},
        )
    return min(1, sum(not is_as_expected(facts) for facts in table.values()))


def _find_out(version: str, known: Facts, path: Path, arguments: argparse.Namespace) -> None:
    """Ask what is not known yet of one version, and keep each answer as it comes."""
    place = path.parent / version
    if not known.get("adapters"):
        known["installs"] = _set_up(version, place, arguments.platform)
        known["adapters"] = _adapters(place)
        known["torch"] = _torch(place)
        _keep(known, path)
    runs = known.setdefault("runs", {})
    for case in CASES if known["adapters"] else ():
        if case.name in runs and runs[case.name]["decision"]:
            continue
        print(f"{version}: {case.name}", file=sys.stderr, flush=True)
        given = argparse.Namespace(
            engine="vllm",
            vllm=str(place),
            image=None,
            sglang=None,
            checkpoint=None,
            engine_arg=[],
            suite=arguments.suite,
            out=path.parent / f"runs-{version}",
        )
        _begin_where_another_has(given.out)
        if case.deleted and not (given.out / "nvfp4-declared" / "checkpoint").is_dir():
            continue
        runs[case.name] = release_table.run(case, given)
        _keep(known, path)


def _begin_where_another_has(out: Path) -> None:
    """Copy the runs of another version, whose checkpoints are found again: none depends on it."""
    done = [path for path in out.parent.glob("runs-*/nvfp4-declared") if path.is_dir()]
    if done and not out.exists():
        ignored = shutil.ignore_patterns("samples", "baseline", "*.log", "baselines", "input*")
        shutil.copytree(done[0].parent, out, ignore=ignored)
    out.mkdir(exist_ok=True)


def _set_up(version: str, place: Path, platform: str) -> bool:
    if (place / "bin" / "python").exists():
        return True
    done = subprocess.run(
        [ROOT / "scripts" / "setup-vllm", platform, "--version", version],
        env=os.environ | {"VENV": str(place)},
        check=False,
    )
    return done.returncode == 0


def _adapters(place: Path) -> Mapping[str, Any] | None:
    """Return what the plugin finds in that environment; None where it cannot be asked."""
    done = subprocess.run(
        [place / "bin" / "python", "-m", "harness_vllm.adapters"],
        env=os.environ | {"PYTHONPATH": str(PLUGIN)},
        capture_output=True,
        text=True,
        check=False,
    )
    told: Mapping[str, Any] | None = json.loads(done.stdout) if done.returncode == 0 else None
    return told


def _torch(place: Path) -> str:
    program = "from importlib.metadata import version; print(version('torch'))"
    done = subprocess.run(
        [place / "bin" / "python", "-c", program], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "none"


def _keep(known: Facts, path: Path) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def markdown(table: Mapping[str, Facts]) -> str:
    """Return a row a version."""
    lines = ["| " + " | ".join(_HEAD) + " |", "|---" * len(_HEAD) + "|"]
    for version, known in table.items():
        cells = [version, known.get("torch", "-"), _missing(known), _baseline(known)]
        cells += [_verdict(known, case.name) for case in CASES]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _missing(known: Facts) -> str:
    told = known.get("adapters")
    if not told:
        return "not asked" if known.get("installs", True) else "does not install"
    return ", ".join(told["missing"]) or "none"


def _baseline(known: Facts) -> str:
    """Return the unquantized model's accuracy, the mean of its tasks."""
    for row in known.get("runs", {}).values():
        scores = [pair[0] for pair in row["tasks"].values() if pair[0] is not None]
        if scores:
            return f"{100 * sum(scores) / len(scores):.1f} %"
    return "-"


def _verdict(known: Facts, case: str) -> str:
    row = known.get("runs", {}).get(case)
    if row is None:
        return "-"
    reasons = f" ({', '.join(row['reason_codes'])})" if row["reason_codes"] else ""
    return f"{row['decision'] or 'exit ' + str(row['exit'])}{reasons}"


def _in_words(known: Facts) -> str:
    verdicts = ", ".join(f"{case.name} {_verdict(known, case.name)}" for case in CASES)
    return f"torch {known.get('torch')}, adapters missing: {_missing(known)}; {verdicts}"


def is_as_expected(known: Facts) -> bool:
    """Return whether no checkpoint without scales ended GO."""
    return all(
        row["decision"] != "GO" for name, row in known.get("runs", {}).items() if "deleted" in name
    )


if __name__ == "__main__":
    sys.exit(main())
