"""What `harness prefetch` does, and the text that is printed.

Libraries read where to keep data sets as they are imported, so the rooms that import them are
imported when that is settled.
"""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from harness import doors, offline
from harness.artifacts import to_json
from harness.cli.console import Result
from harness.errors import PrerequisiteError, UsageError
from harness.offline import Manifest
from harness.request import Request, as_typed

_GIB = 1 << 30
_FIELDS = (
    *("revision", "tasks", "task_code", "calib_data", "calib_size", "calib_seq"),
    "baseline",
)


def completed(request: Request, recipe: str, suite: str) -> Request:
    """Return the request with its recipe, by name or by file, and its suite."""
    if Path(recipe).suffix in {".yaml", ".yml"} or Path(recipe).is_file():
        return replace(request, recipe=Path(recipe), suite=suite)
    return replace(request, qformat=recipe, suite=suite)


def fill(request: Request, out: Path, wheels: Path | None) -> Result:
    """Fill the folder, then load all of it in a process that can reach nobody.

    Raises:
        UsageError: this process is to use no network itself, or a part cannot be had.
        PrerequisiteError: what was fetched is not enough.
    """
    if offline.folder_in_use() is not None:
        message = f"{offline.VARIABLE} is set: nothing can be fetched without a network. Unset it."
        raise UsageError(message)
    doors.check_folder(out)
    offline.fill(out)
    from harness.prefetching import collect  # noqa: PLC0415 - see above

    manifest, there = collect(request, into=out, wheels=wheels)
    _rehearse(there, out)
    return _told(manifest, out)


def check(request: Request, folder: Path) -> Result:
    """Load all of a folder as a run does, making no connection.

    Raises:
        UsageError: a part is missing, was changed, or cannot be loaded.
    """
    manifest = offline.use(folder)
    from harness.prefetching import rehearse  # noqa: PLC0415 - see above

    rehearse(request, folder, manifest)
    return _told(manifest, folder)


def _rehearse(there: Request, folder: Path) -> None:
    recipe = str(there.recipe) if there.recipe is not None else str(there.qformat)
    command = (
        *(sys.executable, "-m", "harness", "--quiet", "prefetch", recipe, str(there.suite)),
        *as_typed(there, _FIELDS),
        *(f"--model={there.model}", f"--out={folder}", "--check"),
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    if done.returncode:
        (folder / offline.MANIFEST).unlink(missing_ok=True)
        said = (done.stderr.strip().splitlines() or ["no reason was given"])[-1]
        message = (
            f"what was fetched into '{folder}' is not enough without a network: "
            f"{said.removeprefix('harness: ')}"
        )
        raise PrerequisiteError(message)


def _told(manifest: Manifest, folder: Path) -> Result:
    num_bytes = sum(file.num_bytes for file in manifest.files)
    models = ", ".join(f"{one.name} ({one.digest[:12]})" for one in manifest.models)
    much = f"{len(manifest.files)} files, {num_bytes / _GIB:.2f} GiB"
    lines = [
        f"{folder}: {much}, all loaded again without a network.",
        f"models: {models or 'what ships with harness'}",
        f"data sets: {', '.join(manifest.tasks) or 'what ships with harness, or own'}",
    ]
    lines += [f"calibration: {one.num_texts} texts of {one.data}" for one in manifest.texts]
    if manifest.wheels is not None:
        wheels = f"{folder}/{manifest.wheels}"
        lines.append(f"there: pip install --no-index --find-links {wheels} -r {wheels}/lock.txt")
    lines.append(f"there: {manifest.command.replace('DIR', str(folder))}")
    return Result(text="\n".join(lines), values={"folder": str(folder), **_values(manifest)})


def _values(manifest: Manifest) -> dict[str, object]:
    values = to_json(manifest)
    return {**values} if isinstance(values, dict) else {}
