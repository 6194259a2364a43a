"""How fast files are read is tried all over them, however large they are."""

import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from torch import Tensor

from harness import shipped
from harness.errors import ModelError
from harness.models import open_source, read_rate, reading_rate
from harness.models.pieces import Span
from harness.models.transfer import Transfer

CANARY = shipped.canary() / "model"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Span]:
    """Return what is read from files, when it is read."""
    spans: list[Span] = []
    real = Transfer.read

    def read(self: Transfer, wanted: Sequence[Span], block: Tensor) -> None:
        spans.extend(wanted)
        real(self, wanted, block)

    monkeypatch.setattr(Transfer, "read", read)
    return spans


def test_a_small_model_is_read_whole(seen: list[Span]) -> None:
    assert read_rate(open_source(str(CANARY))) > 0
    size = (CANARY / "model.safetensors").stat().st_size
    assert seen == [Span("model.safetensors", 0, size, into=0)]


@pytest.mark.parametrize("stretch", [1 << 20, 3 << 20])
def test_of_a_large_one_stretches_that_lie_all_over_it(
    seen: list[Span], monkeypatch: pytest.MonkeyPatch, stretch: int
) -> None:
    monkeypatch.setattr(reading_rate, "STRETCH_BYTES", stretch)
    monkeypatch.setattr(reading_rate, "MOST_STRETCHES", 4)
    read_rate(open_source(str(CANARY)))
    size = (CANARY / "model.safetensors").stat().st_size
    offsets = [one.offset for one in seen]
    assert 3 <= len(seen) <= 4
    assert {one.num_bytes for one in seen[:-1]} == {stretch}
    assert offsets[0] == 0
    assert size - offsets[-1] <= size / 2
    assert len({b - a for a, b in itertools.pairwise(offsets)}) == 1


def test_a_file_that_became_shorter_is_named(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(CANARY, tmp_path / "model"))
    source = open_source(str(folder))
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(ModelError, match=r"model\.safetensors.*it ends at byte 1000"):
        read_rate(source)
