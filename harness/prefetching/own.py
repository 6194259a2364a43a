"""Copy the files that the user named, so that the folder needs nothing beside it."""

import shutil
from dataclasses import replace
from pathlib import Path

import yaml

from harness.artifacts import Suite
from harness.doors import write_atomically
from harness.reading import read_yaml_mapping
from harness.request import Request


def copied(request: Request, suite: Suite, into: Path) -> Request:
    """Copy recipe, suite, own tasks and calibration file; return the request that names the copies.

    Folders of tasks that the suite's file names become options, for a path from the file leads
    elsewhere in its copy.
    """
    changed: dict[str, object] = {}
    if request.recipe is not None:
        changed["recipe"] = _copy(Path(request.recipe), into / "recipe")
    if request.suite is not None and Path(request.suite).is_file():
        changed["suite"] = str(_copy_suite(Path(request.suite), into / "suite"))
    if request.calib_data is not None and Path(request.calib_data).is_file():
        changed["calib_data"] = str(_copy(Path(request.calib_data), into / "calibration"))
    folders = []
    for number, folder in enumerate(suite.tasks_from, start=1):
        folders.append(into / "tasks" / str(number) / Path(folder).name)
        shutil.copytree(folder, folders[-1], dirs_exist_ok=True)
    return replace(request, **changed, tasks=tuple(folders))  # type: ignore[arg-type]  # by name


def _copy(path: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / path.resolve().name
    shutil.copyfile(path, target)
    return target


def _copy_suite(path: Path, folder: Path) -> Path:
    """Copy a suite's file without the paths in it; its digest does not cover them."""
    target = _copy(path, folder)
    values = dict(read_yaml_mapping(path))
    smoke = path.parent / str(values.get("smoke"))
    if smoke.is_file():
        values["smoke"] = _copy(smoke, folder).name
    values.pop("tasks_from", None)
    write_atomically(target, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    return target
