import zipfile
from pathlib import Path

import pytest

from harness.errors import PrerequisiteError
from harness.prefetching.wheels import fetch_wheels
from tests.tiers import slow

WHEEL = "bird-1.0-py3-none-any.whl"
META = "Metadata-Version: 2.1\nName: bird\nVersion: 1.0\n"
KIND = "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@pytest.fixture
@slow("starts pip, which takes seconds")
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels in the place of an index."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        wheel.writestr("bird.py", "")
        wheel.writestr("bird-1.0.dist-info/METADATA", META)
        wheel.writestr("bird-1.0.dist-info/WHEEL", KIND)
        wheel.writestr("bird-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_the_wheels_of_a_lock_file_lie_beside_it(index: Path, tmp_path: Path) -> None:
    lock = tmp_path / "constraints.txt"
    lock.write_text("bird==1.0\n", encoding="utf-8")
    fetch_wheels(lock, tmp_path / "kept/wheels")
    assert (tmp_path / "kept/wheels" / WHEEL).read_bytes() == (index / WHEEL).read_bytes()
    assert (tmp_path / "kept/wheels/lock.txt").read_text(encoding="utf-8") == "bird==1.0\n"


def test_a_version_that_cannot_be_had_is_told(index: Path, tmp_path: Path) -> None:
    lock = tmp_path / "constraints.txt"
    lock.write_text("bird==2.0\n", encoding="utf-8")
    with pytest.raises(PrerequisiteError, match=r"cannot be had: ERROR: .*bird==2\.0"):
        fetch_wheels(lock, tmp_path / "kept/wheels")
    assert index.is_dir()
