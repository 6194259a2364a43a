"""Which NeMo Evaluator is there, and what of our environment it is given.

It lives in an environment of its own (Python 3.12 on), as vLLM does. Looked for, in order: what the
run was told (`--nel`), $HARNESS_NEL, and our own environment (the extra `nel`).
"""

import os
import re
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from harness.doors import expanded
from harness.errors import PrerequisiteError
from harness.surroundings import SEARCHED, absolute_entries

VARIABLE = "HARNESS_NEL"
LEAST = (0, 3)
INSTALL = (
    "Install it in an environment of its own (`python3.12 -m venv .venv-nel`, "
    "`.venv-nel/bin/pip install 'nemo-evaluator[stats]>=0.3'`), and name that with --nel .venv-nel "
    f"or in {VARIABLE}"
)
_PASSED = frozenset(
    """
    HF_DATASETS_CACHE HF_DATASETS_OFFLINE HF_HOME HF_HUB_CACHE HF_HUB_OFFLINE HOME LANG LANGUAGE
    LD_LIBRARY_PATH LOGNAME OMP_NUM_THREADS PATH SSL_CERT_DIR SSL_CERT_FILE TEMP TMP TMPDIR TZ USER
    XDG_CACHE_HOME
    """.split()  # noqa: SIM905 -- a name a line would be a screen
)
_NAMED = re.compile(r"\$\{(\w+)(?::-.*?)?\}")


def find_nel(place: str | None) -> Path:
    """Return the Python that has NeMo Evaluator; nothing is run.

    Args:
        place: a folder of a virtual environment, or its Python; None looks around.

    Raises:
        PrerequisiteError: none is known, or what was named is no Python.
    """
    named = place or os.environ.get(VARIABLE)
    if not named:
        if find_spec("nemo_evaluator") is not None:
            return Path(sys.executable)
        message = f"NeMo Evaluator, which the suite asks tasks with, was not found. {INSTALL}."
        raise PrerequisiteError(message)
    folder = expanded(named)
    # Not resolved: a virtual environment's python is a link, and it is the link that counts.
    python = folder / "bin" / "python" if folder.is_dir() else folder
    if python.is_file() and os.access(python, os.X_OK):
        return python.absolute()
    origin = "--nel" if place else f"${VARIABLE}"
    message = f"{origin} '{named}' is neither a Python nor an environment's folder. {INSTALL}."
    raise PrerequisiteError(message)


def named_variables(configuration: str) -> tuple[str, ...]:
    """Return the environment's variables that a configuration names, as `${NAME}`."""
    return tuple(dict.fromkeys(_NAMED.findall(configuration)))


def passed_on(named: Iterable[str]) -> dict[str, str]:
    """Return what NeMo Evaluator is given of our environment: nothing secret that is not named."""
    wanted = _PASSED.union(named)
    chosen = {name: value for name, value in os.environ.items() if name in wanted}
    for name in SEARCHED:
        if name in chosen:
            chosen[name] = absolute_entries(chosen[name])
    return chosen
