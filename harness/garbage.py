"""How often Python's garbage collector looks for cycles.

It does so whenever some hundreds of objects were made, and each time that enough of them stay it
goes through all there are. Libraries for models make a million objects when they are imported, and
the plan of a large model as many again; all of these stay. Going through them over and over took a
third of an import, two thirds of what is prepared for 30,000 layers, and holds up every thread.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_NEW, _YOUNG, _OLD = 100_000, 50, 1_000
"""Objects that are made before new ones are looked at; how often so before those that stayed then
are; and how often these before all are."""


def collect_rarely() -> None:
    """Look for cycles rarely from now on, in this process."""
    gc.set_threshold(_NEW, _YOUNG, _OLD)


@contextmanager
def settled() -> Iterator[None]:
    """Look at nothing inside the context that is there when it begins."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def collect() -> None:
    """Free what is only held by cycles, such as a model that nobody uses any more."""
    gc.collect()
