"""Give runs to a tracker, by a process of its own: what a tracker does or is short of stays there.

A tracker that does not answer costs a line of the log, and no verdict and no exit code.
"""

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from harness.artifacts import to_json
from harness.errors import PrerequisiteError
from harness.kept import run_kept
from harness.tracking.values import TrackedRun

_CHILD = Path(__file__).with_name("child.py")
_MOST_S = 300.0
_SHOWN = 200
"""Characters of what a tracker says."""
_SHORTEST_SECRET = 6
_SECRETS = ("KEY", "PASSWORD", "SECRET", "TOKEN")
"""A variable that is named so holds one."""
_UNASKED = {
    # MLflow tries for minutes otherwise where nobody answers.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Settings of trackers, unless they are set."""
_log = logging.getLogger("harness.tracking")


class Trackers(NamedTuple):
    """Where runs are to be seen; None for a tracker that nobody asked for."""

    mlflow: str | None = None
    """A tracking URI."""
    wandb: Path | None = None
    """Folder of offline runs."""

    def asked(self) -> Iterator[tuple[str, str]]:
        """Yield the name of each tracker that was asked for, and where it is."""
        if self.mlflow is not None:
            yield "mlflow", self.mlflow
        if self.wandb is not None:
            yield "wandb", str(self.wandb.absolute())


def check_trackers(trackers: Trackers) -> None:
    """Look, before anything runs, whether what sends is installed.

    Raises:
        PrerequisiteError: it is not.
    """
    for name, _ in trackers.asked():
        if find_spec(name) is None:
            message = (
                f"--{name} needs the package {name}. Install it: "
                f"pip install 'harness-ptq-gate[{name}]'."
            )
            raise PrerequisiteError(message)


def track(trackers: Trackers, project: str, runs: Sequence[TrackedRun]) -> None:
    """Send runs to each tracker, and log in one line each what became of it.

    Args:
        trackers: that were asked for.
        project: under which the runs stand together.
        runs: those that a tracker has are not sent again; their tags are.
    """
    for name, target in trackers.asked():
        failure = _send(name, target, project, runs)
        where = f"{name}: '{shown(target)}'"
        if failure:
            _log.warning("%s was not told: %s. The verdict stands.", where, failure)
        else:
            number = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
            _log.info("%s has %s of '%s'", where, number, project)


def shown(target: str) -> str:
    """Return an address without the name and password that it may hold."""
    parts = urlsplit(target)
    if not parts.scheme or not parts.netloc:
        return target
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _send(name: str, target: str, project: str, runs: Sequence[TrackedRun]) -> str:
    """Return why a tracker could not be told; empty where it was."""
    order = {"tracker": name, "target": target, "project": project, "runs": to_json(list(runs))}
    try:
        with tempfile.TemporaryDirectory(prefix="harness-tracking-") as folder:
            failure = _sent(order, Path(folder))
    except OSError as error:
        failure = str(error)
    return _one_line(_without_secrets(failure, target, os.environ))


def _sent(order: Mapping[str, object], folder: Path) -> str:
    """Let a process send what is ordered, and return what was in its way.

    Raises:
        OSError: no process can be started, or it took too long.
    """
    (folder / "order.json").write_text(json.dumps(order), encoding="utf-8")
    done, log = folder / "done.json", folder / "log"
    run_kept(
        [sys.executable, "-P", str(_CHILD), str(folder)],
        _UNASKED | dict(os.environ),
        folder=Path.cwd(),
        log=log,
        meanwhile=_until(time.monotonic() + _MOST_S),
    )
    if not done.exists():
        return f"its process ended: {_last_line(log)}"
    return str(json.loads(done.read_text(encoding="utf-8"))["failure"])


def _until(end: float) -> Callable[[], None]:
    def look() -> None:
        if time.monotonic() > end:
            message = f"it took more than {_MOST_S:.0f} s"
            raise TimeoutError(message)

    return look


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")


def _without_secrets(text: str, target: str, environment: Mapping[str, str]) -> str:
    text = text.replace(target, shown(target))
    userinfo = urlsplit(target).netloc.rpartition("@")[0]
    secrets = [userinfo, userinfo.partition(":")[2]]
    secrets += [v for n, v in environment.items() if any(word in n.upper() for word in _SECRETS)]
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET or (secret and secret in userinfo):
            text = text.replace(secret, "***")
    return text


def _one_line(text: str) -> str:
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."
