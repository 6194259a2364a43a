"""Print what `measure.py` found as a table: what each text leaves thin, and what that costs.

    python -m scripts.coverage.table rows.json

Costs are Kullback-Leibler divergences of a token in thousandths of a nat, the mean of the draws.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.coverage.kinds import KINDS, THRESHOLDS

_SHORT = ("shared scales", "own scales", "all scales")


def columns_of(rows: list[Mapping[str, Any]]) -> dict[str, str]:
    """Return the measured costs by the heads of their columns."""
    names = [name for name in rows[0] if ", " in name]
    return {
        f"{name.partition(', ')[0]}, {short}": name
        for name in names
        for kind, short in zip(KINDS, _SHORT, strict=True)
        if name.endswith(kind)
    }


def table(rows: list[Mapping[str, Any]]) -> str:
    """Return the rows in Markdown."""
    costs = columns_of(rows)
    heads = ["calibrated with", *(f"under {few}" for few in THRESHOLDS), "fewest", *costs]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for row in rows:
        shares = [f"{row[f'under {few}']:.2%}" for few in THRESHOLDS]
        found = [
            f"{1000 * sum(one['divergence'] for one in row[name]) / len(row[name]):.2f}"
            for name in costs.values()
        ]
        cells = [row["text"], *shares, f"{row['fewest']:.0f}", *found]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table of each file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+")
    for file in parser.parse_args().files:
        found = json.loads(file.read_text(encoding="utf-8"))
        loss = found["loss of the unquantized model"]
        print(f"{file}: loss of the unquantized model {loss:.3f}\n\n{table(found['rows'])}\n")


if __name__ == "__main__":
    main()
