"""Make Python's garbage collector look for cycles rarely.

By default it starts after every 700 new objects, and from time to time goes through all objects
that there are. Importing the model libraries makes a million objects that stay, and the plan of a
large model as many again. Collecting over and over took a third of the import time and two thirds
of the preparation for 30,000 layers, and stopped every thread meanwhile.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_NEW, _YOUNG, _OLD = 100_000, 50, 1_000
"""Thresholds of the collector's three generations."""


def collect_rarely() -> None:
    """Look for cycles rarely from now on, in this process."""
    gc.set_threshold(_NEW, _YOUNG, _OLD)


@contextmanager
def settled() -> Iterator[None]:
    """Keep the collector away, inside the context, from all objects that exist when it begins."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def collect() -> None:
    """Collect now, such as a model that is no longer used but is part of a cycle."""
    gc.collect()
