"""A run that is killed at any stage continues when the same command is typed again."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.tiers import slow

STAGES = ["calibrate", "export", "verify", "score candidate", "score baseline", "judge"]


StopAt = Callable[[str, signal.Signals, list[str]], tuple[int, list[str]]]


@pytest.fixture
@slow("runs that are started, as processes, to be killed")
def stop_at(environment: dict[str, str], tmp_path: Path) -> StopAt:
    def run(stage: str, stop: signal.Signals, arguments: list[str]) -> tuple[int, list[str]]:
        """Run until `stage` starts, send a signal; return the exit code and what was printed."""
        seen: list[str] = []
        with subprocess.Popen(
            [sys.executable, "-m", "harness", *arguments],
            env=environment | {"HARNESS_BASELINES": str(tmp_path / "baselines")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                seen.append(line.strip())
                if line.strip() == f"{stage}: starting":
                    process.send_signal(stop)
            return process.wait(), seen

    return run


def test_a_run_killed_at_every_stage_in_turn_finishes_without_doing_anything_twice(
    cli: Cli, stop_at: StopAt, quick: tuple[str, ...], tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    arguments = [*quick, "--qformat", "nvfp4", "--run-dir", str(run_dir)]
    for number, stage in enumerate(STAGES[:-1]):
        code, seen = stop_at(stage, signal.SIGKILL, arguments)
        assert code == -signal.SIGKILL
        # The stage before this one was finished by this very run.
        for earlier in STAGES[: max(number - 1, 0)]:
            assert f"{earlier}: done before" in seen
        assert not (run_dir / "verdict.json").exists()
        if stage == "export":
            assert not (run_dir / "checkpoint").exists()
    done = cli(*arguments)
    assert done.code == 0, done.err
    assert done.err.count("done before") == len(STAGES) - 2


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_with_its_own_exit_code(
    stop_at: StopAt, quick: tuple[str, ...], tmp_path: Path, stop: signal.Signals, code: int
) -> None:
    arguments = [*quick, "--qformat", "nvfp4", "--run-dir", str(tmp_path / "run")]
    ended, seen = stop_at("calibrate", stop, arguments)
    assert ended == code
    assert "Type the command again to continue." in seen[-1]
