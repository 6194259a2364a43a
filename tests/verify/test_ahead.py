"""Files that are read before verify asks: the same report, and no change since goes unseen."""

import json
import logging
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import active_children
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from harness.artifacts import IntegrityReport
from harness.errors import ModelError
from harness.verify import ReadingAhead, ahead, reading_checkpoint, verify
from tests.verify.test_reading import many_weights

Change = Callable[[Path], None]


@pytest.fixture(autouse=True)
def read_however_small(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(ahead, "LEAST_BYTES", 0)
    caplog.set_level(logging.INFO, "harness.verify")


@pytest.fixture
def checkpoint(tmp_path: Path) -> tuple[Path, Path]:
    """Return a faulty checkpoint of two files, and its source."""
    folder, source = many_weights(tmp_path, 8)
    return folder, source


def has_read(reading: ReadingAhead) -> None:
    """Wait until the processes have read everything."""
    reading.add(())
    assert all(told.poll(60) for told in reading._told)  # noqa: SLF001 - nobody else waits for them


def report_after(
    checkpoint: tuple[Path, Path], change: Change = lambda _: None
) -> tuple[IntegrityReport, IntegrityReport]:
    """Return what verify says of files that were read before, and what it says by itself."""
    folder, source = checkpoint
    with reading_checkpoint(folder, source) as reading:
        has_read(reading)
        change(folder)
        found = verify(folder, source=source, before=reading)
    return found, verify(folder, source=source)


def read_before(caplog: pytest.LogCaptureFixture) -> str:
    (said,) = [line for line in caplog.messages if "read before" in line]
    return said


def test_the_report_is_that_of_verify_alone(
    checkpoint: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    found, expected = report_after(checkpoint)
    assert found == expected
    assert found.errors
    assert read_before(caplog) == "verify: 2 of 2 files were read before"


def flip(folder: Path) -> None:
    """Let a weight be NaN, in its place, and give the file its old time."""
    path = folder / "model-1.safetensors"
    stat = path.stat()
    with path.open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        file.write(b"\x7f")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def exchange(folder: Path) -> None:
    """Put another file of the same size in its place."""
    path = folder / "model-1.safetensors"
    tensors = load_file(path)
    first = min(name for name in tensors if name.endswith(".weight"))
    tensors[first] = tensors[first].flip(0).contiguous()
    save_file(tensors, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


@pytest.mark.parametrize("change", [flip, exchange])
def test_a_file_that_was_changed_since_is_read_again(
    checkpoint: tuple[Path, Path], change: Change, caplog: pytest.LogCaptureFixture
) -> None:
    untouched = verify(checkpoint[0], source=checkpoint[1])
    found, expected = report_after(checkpoint, change)
    assert found == expected
    assert found.checks != untouched.checks
    assert read_before(caplog) == "verify: 1 of 2 files were read before"


def declare(folder: Path) -> None:
    declared = {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["*"]}
    (folder / "config.json").write_text(json.dumps({"quantization_config": declared}))


def rename(folder: Path) -> None:
    """Let a tensor be called otherwise, in a header that is as long as before."""
    path = folder / "model-0.safetensors"
    content = path.read_bytes()
    path.write_bytes(
        content.replace(b"layers.0.mlp.down_proj.weight_", b"layers.9.mlp.down_proj.weight_")
    )


@pytest.mark.parametrize("change", [declare, rename])
def test_nothing_counts_that_was_read_under_another_configuration_or_other_headers(
    checkpoint: tuple[Path, Path], change: Change, caplog: pytest.LogCaptureFixture
) -> None:
    found, expected = report_after(checkpoint, change)
    assert found == expected
    assert read_before(caplog) == "verify: 0 of 2 files were read before"


def test_nothing_counts_when_the_source_was_touched(
    checkpoint: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    def touch(_: Path) -> None:
        (checkpoint[1] / "model-0.safetensors").touch()

    found, expected = report_after(checkpoint, touch)
    assert found == expected
    assert read_before(caplog) == "verify: 0 of 2 files were read before"


def test_a_process_that_was_killed_costs_no_finding(checkpoint: tuple[Path, Path]) -> None:
    folder, source = checkpoint
    with reading_checkpoint(folder, source) as reading:
        for child in children():
            os.kill(child, signal.SIGKILL)
        assert verify(folder, source=source, before=reading) == verify(folder, source=source)


def children() -> Iterator[int]:
    for child in active_children():
        if child.pid is not None and child.name.startswith("verify-"):
            yield child.pid


def test_what_is_compared_with_another_source_was_not_read(
    checkpoint: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder, source = checkpoint
    with reading_checkpoint(folder, None) as reading:
        assert verify(folder, source=source, before=reading) == verify(folder, source=source)
    assert not [line for line in caplog.messages if "read before" in line]


def test_processes_end_where_nothing_of_theirs_is_of_use(checkpoint: tuple[Path, Path]) -> None:
    folder, source = checkpoint
    with reading_checkpoint(folder, None) as reading:
        assert list(children())
        verify(folder, source=source, before=reading)
        assert not list(children())


def test_a_process_that_is_killed_while_it_waits_keeps_nobody_waiting(
    checkpoint: tuple[Path, Path],
) -> None:
    folder, source = checkpoint
    names = [path.name for path in sorted(folder.glob("*.safetensors"))]
    with ReadingAhead(source) as reading:
        reading.begin((folder,), 1)
        (child,) = children()
        while not holds_open(child, folder / names[-1]):
            time.sleep(0.01)
        for name in names:
            (folder / name).touch()
        reading.add(names)
        assert not reading._told[0].poll(0.5)  # noqa: SLF001 - it waits until the times are old
        os.kill(child, signal.SIGKILL)
        assert verify(folder, source=source, before=reading) == verify(folder, source=source)


def holds_open(process: int, path: Path) -> bool:
    files = Path(f"/proc/{process}/fd").iterdir()
    return path in {file.readlink() for file in files if file.is_symlink()}


@pytest.mark.parametrize("descriptors", [0, 2, 5])
def test_where_no_process_can_be_started_verify_reads_all(
    checkpoint: tuple[Path, Path], descriptors: int
) -> None:
    folder, source = checkpoint
    with ReadingAhead(source) as reading:
        with only(descriptors):
            reading.begin((folder,), 1)
        reading.add(["model-0.safetensors"])
        assert not list(children())
        assert verify(folder, source=source, before=reading) == verify(folder, source=source)


@contextmanager
def only(descriptors: int) -> Iterator[None]:
    """Let this process open no more than some files."""
    free = os.dup(0)
    os.close(free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + descriptors, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_many_cores_begin_six_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "num_cores", lambda: 192)
    with ReadingAhead(None) as reading:
        reading.begin((tmp_path,), 1 << 40)
        assert len(list(children())) == 6


def test_a_file_whose_layer_lies_in_a_cut_one_too_is_left_to_verify(
    checkpoint: tuple[Path, Path],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    split = load_file(checkpoint[0] / "model-1.safetensors")
    cut = {name: split.pop(name) for name in sorted(split)[-1:]}
    save_file(split, checkpoint[0] / "model-1.safetensors")
    save_file(cut, checkpoint[0] / "model-2.safetensors")
    cut_file = checkpoint[0] / "model-2.safetensors"
    os.truncate(cut_file, cut_file.stat().st_size - 1)
    found, expected = report_after(checkpoint)
    assert found == expected
    assert read_before(caplog) == "verify: 1 of 2 files were read before"
    assert "Traceback" not in capfd.readouterr().err


def test_a_folder_that_gets_its_last_name_while_it_is_opened_is_read(
    checkpoint: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, source = checkpoint
    (tmp_path / "partial").mkdir()
    with ReadingAhead(source) as reading:
        reading.begin((tmp_path / "partial", folder), 1)
        verify(folder, source=source, before=reading)
    assert read_before(caplog) == "verify: 2 of 2 files were read before"


def test_a_folder_that_is_none_is_left_to_verify(tmp_path: Path) -> None:
    with reading_checkpoint(tmp_path, None) as reading, pytest.raises(ModelError):
        verify(tmp_path, before=reading)
