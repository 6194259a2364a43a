"""Fill a folder with what a recipe, a suite and their models need."""

import json
import logging
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from harness import __version__, calibrate, offline, score
from harness.artifacts import Recipe, to_json
from harness.doors import remove, write_atomically
from harness.errors import PrerequisiteError
from harness.models import Source, digest_folder, files_of, open_source
from harness.offline import KeptFile, KeptModel, KeptTexts, Manifest
from harness.prefetching.own import copied
from harness.prefetching.wheels import fetch_wheels
from harness.recipe import load_recipe
from harness.request import Request, as_typed
from harness.shipped import CANARY

_log = logging.getLogger("harness.prefetching")
_TYPED = (
    *("revision", "qformat", "recipe", "suite", "tasks", "task_code"),
    *("calib_data", "calib_size", "calib_seq", "baseline"),
)
_OTHERS = (".lock", ".partial", ".incomplete")
"""Files that libraries leave in their caches and that nobody reads."""


class Collected(NamedTuple):
    """The folder's manifest, and what is typed with it."""

    manifest: Manifest
    there: Request
    """The request, with the folder's copies in the place of the user's own files."""


def collect(request: Request, *, into: Path, wheels: Path | None) -> Collected:
    """Fetch all that `request` needs into a folder and write its manifest.

    Raises:
        PrerequisiteError: the wheels cannot be had.
        UsageError: what was typed is wrong, or a model, data set or task cannot be had.
    """
    remove(into / offline.MANIFEST)  # what it says is not so while the folder is filled
    recipe = load_recipe(request)
    sources = {name: open_source(name, revision=revision) for name, revision in _models(recipe)}
    models = tuple(
        _kept(source, recipe, f"models/{number}", into)
        for number, source in enumerate(sources.values(), start=1)
        if source.name != CANARY
    )
    texts = _texts(recipe, sources[recipe.model], into)
    tasks = score.load_data_sets(recipe.suite)
    there = copied(request, recipe.suite, into)
    if wheels is not None:
        fetch_wheels(wheels, into / "wheels")
    manifest = Manifest(
        version=offline.VERSION,
        harness=__version__,
        models=models,
        texts=texts,
        files=tuple(_files(into)),
        recipe=recipe.name,
        suite=recipe.suite.name,
        suite_digest=recipe.suite.digest,
        tasks=tasks,
        wheels="wheels" if wheels is not None else None,
        command=_command(there, into),
    )
    content = json.dumps(to_json(manifest), indent=1, allow_nan=False)
    write_atomically(into / offline.MANIFEST, content)
    return Collected(manifest, there)


def _models(recipe: Recipe) -> Iterator[tuple[str, str | None]]:
    """Yield each model that is read; a baseline that is a run or a bundle is none."""
    yield recipe.model, recipe.revision
    if recipe.baseline is not None:
        path = Path(recipe.baseline)
        if (path / "config.json").exists() or not path.exists():
            yield recipe.baseline, None


def _kept(source: Source, recipe: Recipe, below: str, into: Path) -> KeptModel:
    """Copy a model's files, and compare what was copied with what was read."""
    _log.info("prefetch: %s", source.name)
    folder = into / below
    folder.mkdir(parents=True, exist_ok=True)
    for name, file in files_of(source.path).items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.stat().st_size != file.stat().st_size:
            shutil.copyfile(file, target)
    if digest_folder(folder) != source.digest:
        message = (
            f"'{folder}' holds other files than '{source.path}', perhaps of an earlier model. "
            "Remove it, and type the command again."
        )
        raise PrerequisiteError(message)
    revision = recipe.revision if source.name == recipe.model else None
    return KeptModel(name=source.name, revision=revision, folder=below, digest=source.digest)


def _texts(recipe: Recipe, source: Source, into: Path) -> tuple[KeptTexts, ...]:
    spec = recipe.calibration
    if not calibrate.is_public(spec):
        return ()
    (into / "calibration").mkdir(exist_ok=True)
    return (calibrate.keep_texts(spec, source, into, f"calibration/{spec.data}.jsonl"),)


def _files(into: Path) -> Iterator[KeptFile]:
    for path in sorted(into.rglob("*")):
        if path.is_file() and path.suffix not in _OTHERS:
            yield KeptFile(
                path=path.relative_to(into).as_posix(),
                num_bytes=path.stat().st_size,
                sha256=offline.sha256_of(path),
            )


def _command(there: Request, into: Path) -> str:
    typed = ("harness", "e2e", f"--model={there.model}", *as_typed(there, _TYPED))
    return f"{shlex.join(typed).replace(str(into), 'DIR')} --offline DIR"
