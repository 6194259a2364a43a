"""What harness makes of checkpoints as their makers publish them, from their configurations alone.

    python -m scripts.published [FOLDER] [--details] [--cut FILE]

FOLDER holds `ORG--NAME_config.json` files, with `ORG--NAME_hf_quant_config.json` beside where there
is one, or a folder a model. From each that declares a quantization a tiny checkpoint is built with
the tensors that it declares, and `verify` is asked about it, without and with each known engine
version, `gate --plan` too, and `verify` once more about every fault that can be planted in it.
Prints the table in markdown. Without FOLDER the configurations of tests/published are asked.
`--cut FILE` writes the configurations as they are kept there: cut to what says how a checkpoint
looks.
"""

import argparse
import json
import tempfile
from pathlib import Path

from tests.published.table import Row, read_folder, row_of, stored, table


def main() -> None:
    """Ask about each configuration and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="Configurations as published.")
    parser.add_argument("--details", action="store_true", help="Print what was said besides.")
    parser.add_argument("--cut", type=Path, metavar="FILE", help="Write what is kept of them.")
    arguments = parser.parse_args()
    models = list(read_folder(arguments.folder)) if arguments.folder else stored()
    if arguments.cut:
        lines = [json.dumps(model._asdict(), separators=(",", ":")) + "\n" for model in models]
        arguments.cut.write_text("".join(lines), encoding="utf-8")
    rows = []
    for model in models:
        with tempfile.TemporaryDirectory() as work:
            rows.append(row_of(model, Path(work)))
    print(table(rows))
    if arguments.details:
        print("\n".join(["", *(line for row in rows for line in details(row))]))


def details(row: Row) -> list[str]:
    """Return what was said where something is not read or not found."""
    answers = {"verify": row.alone, **row.engines, "gate --plan": row.plan}
    lines = [
        f"- {row.name}, {asked}: {answer.message}"
        for asked, answer in answers.items()
        if answer.code
    ]
    return lines + [f"- {row.name}, {n}: {one.wrong}" for n, one in row.faults.items() if one.wrong]


if __name__ == "__main__":
    main()
