import dataclasses
import errno
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from harness.artifacts import CalibrationStats, Recipe, save, write_atomically
from harness.errors import (
    DiskFullError,
    ReasonCode,
    RunDirectoryError,
    SystemRefusedError,
    UsageError,
)
from harness.recipe import Request, load_recipe
from harness.rundir import Stage, find_noun, open_run, process_in, read_recipe

STAGE = Stage(name="calibrate", file="calibration.json", noun=CalibrationStats)


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe(Request(model="canary", qformat="nvfp4"))


def stats(num_samples: int = 1) -> CalibrationStats:
    return CalibrationStats(
        weight_amax={"a": 0.1}, input_amax={}, coverage=(), num_samples=num_samples, num_tokens=2
    )


def counting(calls: list[int]) -> Callable[[], CalibrationStats]:
    def make() -> CalibrationStats:
        calls.append(1)
        return stats()

    return make


def test_a_finished_stage_is_not_run_again(tmp_path: Path, recipe: Recipe) -> None:
    calls: list[int] = []
    for _ in range(2):
        with open_run(tmp_path / "run", recipe) as run:
            assert run.stage(STAGE, made_from={"k": "1"}, make=counting(calls)) == stats()
    assert len(calls) == 1


def test_a_stage_whose_input_changed_is_run_again(tmp_path: Path, recipe: Recipe) -> None:
    calls: list[int] = []
    for key in ("first", "second"):
        with open_run(tmp_path / "run", recipe) as run:
            run.stage(STAGE, made_from={"k": key}, make=counting(calls))
    assert len(calls) == 2


def test_a_stage_that_is_killed_before_its_new_digest_is_kept_is_made_again(
    tmp_path: Path, recipe: Recipe
) -> None:
    def write(noun: CalibrationStats, path: Path, made_from: Mapping[str, str]) -> str:
        save(noun, path, made_from=made_from)
        raise KeyboardInterrupt  # as SIGKILL: nothing is written any more

    with open_run(tmp_path / "run", recipe) as run:
        run.stage(STAGE, made_from={"k": "first"}, make=stats)
    killed = dataclasses.replace(STAGE, write=write)
    with pytest.raises(KeyboardInterrupt), open_run(tmp_path / "run", recipe) as run:
        run.stage(killed, made_from={"k": "second"}, make=stats)
    calls: list[int] = []
    with open_run(tmp_path / "run", recipe) as run:
        run.stage(STAGE, made_from={"k": "second"}, make=counting(calls))
    assert len(calls) == 1


def test_a_stage_whose_outputs_were_deleted_is_run_again(tmp_path: Path, recipe: Recipe) -> None:
    stage = Stage(name="s", file="s.json", noun=CalibrationStats, outputs=("folder",))
    calls: list[int] = []

    def make() -> CalibrationStats:
        (tmp_path / "run" / "folder").mkdir(exist_ok=True)
        return counting(calls)()

    for _ in range(2):
        with open_run(tmp_path / "run", recipe) as run:
            run.stage(stage, made_from={"k": "1"}, make=make)
        (tmp_path / "run" / "folder").rmdir()
    assert len(calls) == 2


def test_a_stage_that_failed_leaves_nothing_that_looks_finished(
    tmp_path: Path, recipe: Recipe
) -> None:
    def fail() -> CalibrationStats:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with (
        pytest.raises(DiskFullError, match=r"no space is left on the disk") as caught,
        open_run(tmp_path / "run", recipe) as run,
    ):
        run.stage(STAGE, made_from={"k": "1"}, make=fail)
    assert caught.value.reason is ReasonCode.DISK_FULL
    assert find_noun(tmp_path / "run", STAGE) is None


def test_fresh_forgets_what_was_done(tmp_path: Path, recipe: Recipe) -> None:
    calls: list[int] = []
    for fresh in (False, True):
        with open_run(tmp_path / "run", recipe, fresh=fresh) as run:
            run.stage(STAGE, made_from={"k": "1"}, make=counting(calls))
    assert len(calls) == 2


def test_a_directory_in_use_by_another_process_is_refused(tmp_path: Path, recipe: Recipe) -> None:
    path = tmp_path / "run"
    program = (
        "import sys, pathlib\n"
        "from harness.recipe import Request, load_recipe\n"
        "from harness.rundir import open_run\n"
        "recipe = load_recipe(Request(model='canary', qformat='nvfp4'))\n"
        "with open_run(pathlib.Path(sys.argv[1]), recipe):\n"
        "    print('open', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        assert process_in(path) == other.pid
        with (
            pytest.raises(RunDirectoryError, match=f"in use by process {other.pid}"),
            open_run(path, recipe),
        ):
            pass
        other.kill()
    assert process_in(path) is None
    with open_run(path, recipe):
        pass


def test_a_folder_with_other_files_is_refused_and_left_alone(
    tmp_path: Path, recipe: Recipe
) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with (
        pytest.raises(RunDirectoryError, match=r"holds files but no run"),
        open_run(tmp_path, recipe, fresh=True),
    ):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_fresh_removes_what_harness_wrote_and_nothing_else(tmp_path: Path, recipe: Recipe) -> None:
    path = tmp_path / "run"
    with open_run(path, recipe) as run:
        run.keep(STAGE, stats(), {})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").touch()
    (path / "checkpoint").symlink_to(tmp_path / "elsewhere")
    (path / "samples").mkdir()
    (path / "thesis.txt").touch()
    with open_run(path, recipe, fresh=True):
        left = {entry.name for entry in path.iterdir()}
    assert left == {"run.lock", "recipe.yaml", "thesis.txt"}
    assert (tmp_path / "elsewhere" / "precious").exists()


def test_a_lock_by_itself_makes_no_run_of_a_folder_with_files(
    tmp_path: Path, recipe: Recipe
) -> None:
    (tmp_path / "run.lock").touch()
    (tmp_path / "samples").mkdir()
    with (
        pytest.raises(RunDirectoryError, match=r"holds files but no run"),
        open_run(tmp_path, recipe, fresh=True),
    ):
        pass
    assert (tmp_path / "samples").exists()


def test_a_lock_that_is_a_link_is_refused_and_not_followed(tmp_path: Path, recipe: Recipe) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(UsageError, match="is no regular file"), open_run(tmp_path / "run", recipe):
        pass
    assert not (tmp_path / "precious").exists()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE, errno.EROFS])
def test_what_the_system_refuses_to_a_stage_ends_it_in_one_line(
    tmp_path: Path, recipe: Recipe, number: int
) -> None:
    def fail() -> CalibrationStats:
        raise OSError(number, os.strerror(number), "/the/file")

    with (
        pytest.raises(SystemRefusedError, match="'/the/file'"),
        open_run(tmp_path / "run", recipe) as run,
    ):
        run.stage(STAGE, made_from={}, make=fail)


def test_the_recipe_on_disk_reads_as_the_recipe(tmp_path: Path, recipe: Recipe) -> None:
    with open_run(tmp_path / "run", recipe):
        pass
    assert read_recipe(tmp_path / "run") == recipe


def test_a_noun_that_was_edited_ends_the_run(tmp_path: Path, recipe: Recipe) -> None:
    file = tmp_path / "run" / STAGE.file
    with open_run(tmp_path / "run", recipe) as run:
        run.stage(STAGE, made_from={"k": "1"}, make=stats)
        file.write_text(file.read_text().replace('"num_tokens": 2', '"num_tokens": 3'))
        with pytest.raises(RunDirectoryError, match=r"calibration.json' was changed") as caught:
            run.stage(STAGE, made_from={"k": "1"}, make=stats)
    assert caught.value.reason is ReasonCode.EVIDENCE_CHANGED


def test_another_noun_with_a_digest_that_fits_ends_the_run(tmp_path: Path, recipe: Recipe) -> None:
    with open_run(tmp_path / "run", recipe) as run:
        run.stage(STAGE, made_from={"k": "1"}, make=stats)
        save(stats(7), tmp_path / "run" / STAGE.file, made_from={"k": "1"})
        with pytest.raises(RunDirectoryError, match=r"is not the one that this run wrote"):
            run.stage(STAGE, made_from={"k": "1"}, make=stats)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"made_from": {}}', "[" * 100_000])
def test_a_noun_that_is_no_record_is_made_again(
    tmp_path: Path, recipe: Recipe, content: str
) -> None:
    calls: list[int] = []
    with open_run(tmp_path / "run", recipe) as run:
        run.stage(STAGE, made_from={"k": "1"}, make=counting(calls))
        (tmp_path / "run" / STAGE.file).write_text(content)
        run.stage(STAGE, made_from={"k": "1"}, make=counting(calls))
    assert len(calls) == 2


def test_what_the_chain_does_not_know_is_made_again(tmp_path: Path, recipe: Recipe) -> None:
    calls: list[int] = []
    for _ in range(2):
        with open_run(tmp_path / "run", recipe) as run:
            run.stage(STAGE, made_from={"k": "1"}, make=counting(calls))
        (tmp_path / "run" / "chain.json").unlink()
    assert len(calls) == 2


def test_a_recipe_that_was_edited_is_named(tmp_path: Path, recipe: Recipe) -> None:
    with open_run(tmp_path / "run", recipe):
        pass
    file = tmp_path / "run" / "recipe.yaml"
    file.write_text(file.read_text().replace("confidence: 0.95", "confidence: 0.5"))
    with pytest.raises(RunDirectoryError, match=r"recipe.yaml' was changed"):
        read_recipe(tmp_path / "run")


def test_a_write_that_fails_leaves_no_partial_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "noun.json", "{}")
    assert list(tmp_path.iterdir()) == []
