"""What is installed where a run is at work, written into its directory as the run begins.

A release is signed off with the environment that its scores came from, not with the one in which
somebody types `harness signoff` later. A run that is resumed after something was installed has been
at work in two, and says so.
"""

import platform
import re
from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from importlib.metadata import Distribution, distributions
from pathlib import Path

from harness.artifacts import (
    EngineSpec,
    Environment,
    Package,
    RunSurroundings,
    Surroundings,
    digest_of,
    load,
    save,
)

ENVIRONMENT_FILE = "environment.json"
HARNESS, ENGINE = "harness", "engine"
_BETWEEN_WORDS = re.compile(r"[-_.]+")
_IN_PREFIX = "lib/python*/site-packages"


def note_surroundings(engine: EngineSpec, run_dir: Path) -> None:
    """Write down what is installed now, beside what the run was at work in before.

    Args:
        engine: that serves, with the place that was found for it.
        run_dir: of the run, which is open.
    """
    path = run_dir / ENVIRONMENT_FILE
    seen = load(RunSurroundings, path).seen if path.exists() else ()
    now = surroundings_of(engine)
    if now not in seen:
        save(RunSurroundings(seen=(*seen, now)), path)


def read_surroundings(run_dir: Path) -> tuple[Surroundings, ...]:
    """Return what the run in `run_dir` was at work in; nothing where it was not written down.

    Raises:
        RunDirectoryError: the file was changed.
    """
    path = run_dir / ENVIRONMENT_FILE
    return load(RunSurroundings, path).seen if path.exists() else ()


def digest_of_all(seen: tuple[Surroundings, ...]) -> str | None:
    """Return one digest of what was installed in all that a run was at work in; None of none."""
    digests = list(dict.fromkeys(one.digest for one in seen))
    if len(digests) > 1:
        return digest_of(digests)
    return digests[0] if digests else None


@cache
def surroundings_of(engine: EngineSpec) -> Surroundings:
    """Return what is installed for harness and for an engine with an environment of its own."""
    ours = Environment(
        name=HARNESS,
        python=platform.python_version(),
        packages=_packages(distributions()),
    )
    theirs = () if engine.place is None else _of_place(Path(engine.place))
    return Surroundings(
        environments=(ours, *theirs),
        platform=platform.platform(),
        image=engine.image,
        host=platform.node(),
    )


def _of_place(place: Path) -> tuple[Environment, ...]:
    """Return the environment of an engine, from its folder or its Python; none if it is not one."""
    prefix = place if place.is_dir() else place.parent.parent
    folders = sorted(prefix.glob(_IN_PREFIX))
    found = _packages(distributions(path=[str(folder) for folder in folders])) if folders else ()
    if not found:
        return ()
    python = folders[0].parent.name.removeprefix("python")
    return (Environment(name=ENGINE, python=python, packages=found),)


def _packages(found: Iterable[Distribution]) -> tuple[Package, ...]:
    """Return what was found, sorted; of two of one name the first, which is what is imported."""
    named: dict[str, Package] = {}
    for one in found:
        package = _package(one)
        if package is not None:
            named.setdefault(package.name, package)
    return tuple(named[name] for name in sorted(named))


def _package(found: Distribution) -> Package | None:
    name = found.metadata["Name"] if found.metadata is not None else None
    if not name:  # the remains of one that was removed
        return None
    record = found.read_text("RECORD")
    return Package(
        name=_BETWEEN_WORDS.sub("-", name).lower(),
        version=found.version,
        record_sha256=sha256(record.encode()).hexdigest() if record else None,
    )
