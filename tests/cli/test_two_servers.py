"""`harness gate` of two real vLLM servers that run already: nothing is started, nothing is seen."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness import shipped
from tests.cli.conftest import Cli, serving
from tests.cli.test_main_job import delete_input_scales
from tests.tiers import slow
from tests.typed import Done, typed

ROOT = Path(__file__).resolve().parents[2]
Gate = Callable[..., Done]
"""Takes options of the command line."""


@pytest.fixture(scope="module")
def checkpoint(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("quantized") / "fp8"
    options = ("--qformat", "fp8", "--calib-size", "32", "--out", out)
    done = cli("quantize", "--model", "canary", *options)
    assert done.code == 0, done.err
    return out / "checkpoint"


@pytest.fixture(scope="module")
@slow("two real vLLM servers at once")
def gate(
    vllm_python: Path,
    checkpoint: Path,
    environment: dict[str, str],
    quick_suite: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gate]:
    assert vllm_python.is_file()
    runs = tmp_path_factory.mktemp("runs")
    model = shipped.canary() / "model"
    with ExitStack() as servers:
        candidate = servers.enter_context(serving(checkpoint, environment))
        baseline = servers.enter_context(serving(model, environment))
        keys = {
            "HARNESS_CANDIDATE_API_KEY": candidate.key,
            "HARNESS_BASELINE_API_KEY": baseline.key,
        }

        def judged(*options: object) -> Done:
            urls = ("--candidate-url", candidate.url, "--baseline-url", baseline.url)
            given = ("--suite", quick_suite, "--tokenizer", model, *options)
            into = runs / str(len(list(runs.iterdir())))
            return typed("gate", *urls, *given, "--run-dir", into, env=environment | keys)

        yield judged


def test_without_a_look_into_the_servers_the_verdict_says_what_is_missing(
    gate: Gate, checkpoint: Path
) -> None:
    done = gate("--checkpoint", checkpoint)
    assert done.code == 5, done.err
    assert "load-not-reconciled" in done.out


def test_who_accepts_that_gets_go(gate: Gate, checkpoint: Path) -> None:
    done = gate("--checkpoint", checkpoint, "--missing-evidence", "go")
    assert done.code == 0, done.err


def test_files_without_their_scales_are_refused_whatever_is_served(
    gate: Gate, checkpoint: Path, tmp_path: Path
) -> None:
    faulty = tmp_path / "faulty"
    shutil.copytree(checkpoint, faulty)
    assert delete_input_scales(faulty)
    done = gate("--checkpoint", faulty, "--missing-evidence", "go")
    assert done.code == 4, done.err
