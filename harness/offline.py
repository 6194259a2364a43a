"""What `harness prefetch` put into a folder, and how a run uses it without a network.

A run is offline when HARNESS_OFFLINE names such a folder; every process that it starts inherits
that. Models are found in the folder by the names that were typed where it was filled, data sets by
the caches of the libraries that read them, which are told to look nowhere else.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from harness.doors import expanded
from harness.errors import PrerequisiteError
from harness.reading import open_regular, read_json_object, refused_as

VARIABLE = "HARNESS_OFFLINE"
MANIFEST = "manifest.json"
VERSION = 1
CACHES: Mapping[str, str] = {
    "HF_DATASETS_CACHE": "datasets",
    "HF_MODULES_CACHE": "modules",
    "HF_EVALUATE_CACHE": "evaluate",
    "NLTK_DATA": "nltk_data",
}
"""Variable and folder of what the libraries that read data sets keep."""
_NOWHERE: Mapping[str, str] = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
_AGAIN = "Fill it again with `harness prefetch`."


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptModel:
    """A model that lies in the folder."""

    name: str
    """As typed."""
    revision: str | None
    folder: str
    """Relative to the manifest, as all paths are."""
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptTexts:
    """The first texts of a public calibration set, in the order that a seed gives."""

    data: str
    seed: int
    file: str
    num_texts: int
    is_whole: bool
    """Whether the set has no more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptFile:
    """A file in the folder."""

    path: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What lies in a prefetched folder."""

    version: int
    harness: str
    models: tuple[KeptModel, ...]
    texts: tuple[KeptTexts, ...]
    files: tuple[KeptFile, ...]
    recipe: str
    suite: str
    suite_digest: str
    tasks: tuple[str, ...]
    """Names of the tasks whose data sets are kept."""
    wheels: str | None
    """Folder of the wheels; None where none were asked for."""
    command: str
    """What to type on the machine without a network; DIR stands for the folder."""


def fill(folder: Path) -> None:
    """Let the libraries that read data sets keep them in the folder, from their import on."""
    for name, below in CACHES.items():
        place = folder.absolute() / below
        place.mkdir(parents=True, exist_ok=True)
        os.environ[name] = str(place)
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")


def use(folder: Path) -> Manifest:
    """Let this process, and all that it starts, find everything in the folder and nowhere else.

    To be called before the libraries that read models and data sets are imported, for these read
    their settings then.

    Raises:
        PrerequisiteError: it is no such folder, or a file of it is missing or shorter.
    """
    folder = expanded(folder).absolute()
    manifest = read_manifest(folder)
    for file in manifest.files:
        path = folder / file.path
        if not path.is_file() or path.stat().st_size != file.num_bytes:
            message = (
                f"'{path}' is missing or has not the {file.num_bytes} bytes that '{MANIFEST}' "
                f"says. Copy the folder again, or fill it again with `harness prefetch`."
            )
            raise PrerequisiteError(message)
    os.environ |= {name: str(folder / below) for name, below in CACHES.items()}
    os.environ |= {**_NOWHERE, "HF_HUB_CACHE": str(folder / "hub"), VARIABLE: str(folder)}
    return manifest


def check_bytes(folder: Path, manifest: Manifest) -> None:
    """Compare the contents of every file with its sha256.

    Raises:
        PrerequisiteError: with the first that differs.
    """
    for file in manifest.files:
        if sha256_of(folder / file.path) != file.sha256:
            message = f"'{folder / file.path}' has not the contents that were fetched. {_AGAIN}"
            raise PrerequisiteError(message)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's contents."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read what lies in a folder.

    Raises:
        PrerequisiteError: it holds no manifest that can be read.
    """
    path = folder / MANIFEST
    if not path.is_file():
        message = f"'{folder}' holds no {MANIFEST}: it is no folder of `harness prefetch`."
        raise PrerequisiteError(message)
    with refused_as(PrerequisiteError, _AGAIN):
        read = read_json_object(path)
    if read.get("version") != VERSION:
        message = f"'{path}' has version {read.get('version')!r}, not {VERSION}. {_AGAIN}"
        raise PrerequisiteError(message)
    try:
        return _manifest_of(read)
    except (TypeError, KeyError, ValueError) as error:
        message = f"'{path}' is no manifest: {error}. {_AGAIN}"
        raise PrerequisiteError(message) from error


def _manifest_of(read: Mapping[str, Any]) -> Manifest:
    rest = {name: value for name, value in read.items() if name not in {"models", "texts", "files"}}
    rest["tasks"] = tuple(rest["tasks"])
    manifest = Manifest(
        models=tuple(KeptModel(**one) for one in read["models"]),
        texts=tuple(KeptTexts(**one) for one in read["texts"]),
        files=tuple(KeptFile(**one) for one in read["files"]),
        **rest,
    )
    for path in _paths_in(manifest):
        parts = PurePosixPath(path)
        if parts.is_absolute() or ".." in parts.parts:
            message = f"'{path}' lies outside of the folder"
            raise ValueError(message)
    return manifest


def _paths_in(manifest: Manifest) -> Iterator[str]:
    yield from (model.folder for model in manifest.models)
    yield from (texts.file for texts in manifest.texts)
    yield from (file.path for file in manifest.files)


def folder_in_use() -> Path | None:
    """Return the folder that this process uses in the place of a network; None where none."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


def kept_model(name: str, revision: str | None) -> tuple[Path, str] | None:
    """Return folder and digest of a model that was fetched; None where nothing is offline.

    Raises:
        PrerequisiteError: the folder in use holds another revision of it.
    """
    folder = folder_in_use()
    if folder is None:
        return None
    models = [model for model in read_manifest(folder).models if model.name == name]
    for model in models:
        if model.revision == revision:
            return folder / model.folder, model.digest
    if models:
        message = (
            f"'{folder}' holds '{name}' at revision '{models[0].revision or 'main'}', not "
            f"'{revision or 'main'}'. Fetch that with `harness prefetch --revision`."
        )
        raise PrerequisiteError(message)
    return None


def kept_texts(data: str, seed: int) -> tuple[Path, KeptTexts] | None:
    """Return the texts of a public calibration set that were fetched; None where none were."""
    folder = folder_in_use()
    if folder is None:
        return None
    kept = [one for one in read_manifest(folder).texts if (one.data, one.seed) == (data, seed)]
    return (folder / kept[0].file, kept[0]) if kept else None
