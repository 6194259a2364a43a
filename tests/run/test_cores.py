"""Cores that a process may keep busy: those that it is bound to, as far as they are granted."""

import os
from pathlib import Path

import pytest

from harness import cores


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("400000 100000\n", 4),
        ("250000 100000\n", 3),
        ("10000 100000\n", 1),
        ("6400000 100000\n", 16),  # more than it is bound to
        ("max 100000\n", 16),
        ("", 16),
        ("5 0", 16),
        (None, 16),
    ],
)
def test_a_group_s_grant_bounds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.setattr(os, "cpu_count", lambda: 192)
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "cpu.max")
    if text is not None:
        (tmp_path / "cpu.max").write_text(text, encoding="ascii")
    assert cores.num_cores() == expected


def test_a_process_that_is_bound_to_one_core_has_one() -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert cores.num_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
