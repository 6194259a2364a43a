"""NeMo Evaluator's results, of its two generations.

    DIR/eval-<time>-<benchmark>.json, results.jsonl, trajectories.jsonl      bundles (0.3 on)
    DIR/<benchmark>/eval-*.json, ...                                         one folder a benchmark
    DIR/results.yml, run_config.yml, eval_factory_metrics.json, ...          artifacts (0.1, 0.2)
    DIR/artifacts/..., DIR/<task>/artifacts/...                              as its launcher writes

A bundle is one benchmark with a row for each answer (`nel_bundle`). Artifacts are what a harness in
a container left, each in its own layout, beside NeMo Evaluator's own files (`nel_artifacts`).
"""

from pathlib import Path

from harness.foreign.nel_artifacts import artifacts_in, read_artifacts
from harness.foreign.nel_bundle import bundles_in, read_bundles
from harness.foreign.recorded import Recorded


def is_nel(path: Path) -> bool:
    """Return whether a folder or a file holds results of NeMo Evaluator."""
    return bool(bundles_in(path) or artifacts_in(path))


def read_nel(path: Path) -> Recorded:
    """Read an arm that NeMo Evaluator scored, or a harness that it ran.

    Args:
        path: a folder as above, or one bundle.

    Raises:
        UnreadableError: a file is malformed, or beyond the bounds of any such.
        RunDirectoryError: a run did not come to its end, or kept no samples.
        IncomparableError: the folder holds several models, or items twice.
    """
    bundles = bundles_in(path)
    return read_bundles(path, bundles) if bundles else read_artifacts(path, artifacts_in(path))
