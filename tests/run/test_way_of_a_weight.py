"""An expert's weight can be followed from the file that it is read from to the shard."""

from pathlib import Path

import pytest

from scripts.weight_way import touching
from tests.tiers import slow

MOST_FILES, MOST_FUNCTIONS = 9, 16


@pytest.fixture
@slow("looks at every variable of every function of harness, line by line")
def on_the_way(
    tiny_qwen3_moe: Path, calibration_jsonl: Path, tmp_path: Path
) -> set[tuple[str, str]]:
    """Return the files and functions that touch one expert's weight."""
    data = str(calibration_jsonl)
    return touching(str(tiny_qwen3_moe), tmp_path, calib_data=data, calib_size=12, calib_seq=64)


def test_few_files_and_functions_touch_an_experts_weight(on_the_way: set[tuple[str, str]]) -> None:
    files = {file for file, _ in on_the_way}
    assert {"making.py", "models/transfer.py", "formats/nvfp4.py", "export/writer.py"} <= files
    assert len(files) <= MOST_FILES, sorted(files)
    assert len(on_the_way) <= MOST_FUNCTIONS, sorted(on_the_way)
