"""Find the first bad engine, checkpoint or commit, by running the gate at as few as possible."""

from harness.bisecting.axes import Kind, checkpoint_axis, engine_axis
from harness.bisecting.bisect import Found, bisect
from harness.bisecting.commits import commit_axis, top_of
from harness.bisecting.search import Ending
from harness.bisecting.trial import Question

__all__ = [
    "Ending",
    "Found",
    "Kind",
    "Question",
    "bisect",
    "checkpoint_axis",
    "commit_axis",
    "engine_axis",
    "top_of",
]
