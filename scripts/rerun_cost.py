"""Print what the baseline's second run (A/A) costs on the canary, and what it shows.

    python -m scripts.rerun_cost [--suite canary] [--share 0.5] [--record]

The model is loaded once and scored three times with the reference engine: the whole suite, a share
of it in half batches as a run does it, and the same share in double batches.
"""

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

from harness.artifacts import EngineSpec
from harness.baselines import RERUN_SHARE
from harness.gate import count_flips, sum_flips
from harness.models import open_source
from harness.recipe import load_suite
from harness.score import read_arm, score, score_again
from harness.serve import serve
from scripts import ledger

ENGINE = EngineSpec(name="reference", numerics="declared", device="cpu", dtype="float32")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="canary")
    parser.add_argument("--share", type=float, default=RERUN_SHARE)
    parser.add_argument("--record", action="store_true", help="Add a row to the ledger.")
    arguments = parser.parse_args()
    values: dict[str, object] = {}
    suite = load_suite(arguments.suite)
    engine = dataclasses.replace(ENGINE, max_model_len=suite.max_model_len)
    with (
        tempfile.TemporaryDirectory() as name,
        serve(engine, open_source("canary").path) as served,
    ):
        started = time.perf_counter()
        score(served, suite, arm="baseline", into=Path(name) / "first")
        first_s = time.perf_counter() - started
        first = read_arm(Path(name) / "first")
        print(f"first run of suite {suite.name}: {first_s:.1f} s", flush=True)
        for factor in (1, 4):
            asked = dataclasses.replace(suite, batch_size=factor * suite.batch_size)
            into = Path(name) / f"again-{factor}"
            started = time.perf_counter()
            score_again(served, asked, into=into, share=arguments.share)
            again_s = time.perf_counter() - started
            flips = sum_flips(count_flips(first, read_arm(into)).values())
            batches = f"second run, batches of {asked.batch_size // 2}"
            values[batches] = (
                f"{again_s / first_s:.0%} of the first run's time, "
                f"{flips.num_flips} of {flips.num_items} items flipped"
            )
            print(f"{batches}: {again_s:.1f} s, {values[batches]}", flush=True)
    if arguments.record:
        ledger.append(
            f"Cost of the baseline's second run (A/A), suite {suite.name}, reference engine",
            command="python -m scripts.rerun_cost --record",
            values=values,
        )


if __name__ == "__main__":
    main()
