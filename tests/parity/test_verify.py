"""The verifier finds no fault in good checkpoints, neither ours nor the peer's."""

from pathlib import Path
from typing import Protocol

from harness.verify import verify


class Pair(Protocol):
    @property
    def ours(self) -> Path: ...
    @property
    def theirs(self) -> Path: ...


def findings(folder: Path) -> list[str]:
    return [check.message for check in verify(folder).checks if not check.passed]


def test_every_check_passes_on_our_checkpoint(pair: Pair) -> None:
    assert findings(pair.ours) == []


def test_every_check_passes_on_the_peers_checkpoint(pair: Pair) -> None:
    assert findings(pair.theirs) == []
