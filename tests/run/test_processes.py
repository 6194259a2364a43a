"""Several pieces of work at once: each result once, and no process left behind whatever happens."""

import multiprocessing
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from harness.errors import EngineError, ReasonCode, StageError
from harness.processes import each

ADVICE = "Give fewer --jobs."


def double(name: str) -> tuple[str, int]:
    return name * 2, os.getpid()


def fail(name: str) -> str:
    if name == "bad":
        message = f"'{name}' cannot be"
        raise EngineError(message, reason=ReasonCode.SCALE_MISSING)
    return name


def die(name: str) -> str:
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return name


def wait(folder: Path, name: str) -> str:
    """Return at once, or wait until the end and tell that it was told to."""
    if name == "quick":
        started = folder / "slow started"
        while not (started.exists() and started.read_text()):
            time.sleep(0.01)
        return name
    try:
        (folder / "slow started").write_text(str(os.getpid()))
        time.sleep(600)
    finally:
        time.sleep(0.2)
        (folder / "unwound").touch()
    return name


def test_one_job_runs_here_in_order() -> None:
    results = list(each(double, ["a", "b"], jobs=1, advice=ADVICE))
    assert results == [("aa", os.getpid()), ("bb", os.getpid())]


def test_several_jobs_run_elsewhere_and_each_result_comes_once() -> None:
    results = dict(each(double, ["a", "b", "c"], jobs=2, advice=ADVICE))
    assert set(results) == {"aa", "bb", "cc"}
    assert os.getpid() not in results.values()
    assert not multiprocessing.active_children()


def test_an_error_keeps_its_reason_and_ends_the_others() -> None:
    with pytest.raises(EngineError, match="'bad' cannot be") as caught:
        list(each(fail, ["bad", "good"], jobs=2, advice=ADVICE))
    assert caught.value.reason is ReasonCode.SCALE_MISSING
    assert not multiprocessing.active_children()


def test_a_process_that_was_killed_ends_the_command_with_one_line() -> None:
    with pytest.raises(StageError, match=ADVICE):
        list(each(die, ["killed", "good"], jobs=2, advice=ADVICE))
    assert not multiprocessing.active_children()


def test_an_end_before_its_time_lets_the_runs_under_way_unwind(tmp_path: Path) -> None:
    results = each(partial(wait, tmp_path), ["slow", "quick"], jobs=2, advice=ADVICE)
    assert next(results) == "quick"
    results.close()
    assert (tmp_path / "unwound").exists()
    assert not multiprocessing.active_children()


def test_ctrl_c_is_the_parents_to_answer_and_breaks_off_no_cleaning_up(tmp_path: Path) -> None:
    results = each(partial(wait, tmp_path), ["slow", "quick"], jobs=2, advice=ADVICE)
    assert next(results) == "quick"
    os.kill(int((tmp_path / "slow started").read_text()), signal.SIGINT)
    time.sleep(0.1)
    assert not (tmp_path / "unwound").exists()
    results.close()
    assert (tmp_path / "unwound").exists()
