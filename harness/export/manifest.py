"""What belongs to the weights of a checkpoint: the index, and the manifest with all hashes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from harness import doors
from harness.artifacts import Checkpoint, QuantPlan, digest_of
from harness.export.config import PRODUCER
from harness.export.read_back import file_sha256
from harness.export.size import bits_per_weight
from harness.models import MANIFEST_FILE, Source


class WrittenFile(NamedTuple):
    """A file of weights that was written and read back."""

    path: Path
    sha256: str
    """Of the file, as it was read back."""
    tensors_xxh3: str
    """Of what was meant: XXH3 of the XXH3 of the header and of those of its tensors."""
    names: tuple[str, ...]
    data_bytes: int
    """Of its tensors, without the header."""


def write_index(files: Sequence[WrittenFile], partial: Path) -> None:
    """Write which file holds which tensor, if there is more than one."""
    if len(files) > 1:
        index = {
            "metadata": {"total_size": sum(file.data_bytes for file in files)},
            "weight_map": {n: file.path.name for file in files for n in sorted(file.names)},
        }
        write_json(partial / "model.safetensors.index.json", index)


def describe(
    source: Source, plan: QuantPlan, files: Sequence[WrittenFile], partial: Path, into: Path
) -> Checkpoint:
    """Write the manifest and return the noun."""
    known = {file.path.name: file.sha256 for file in files}
    sha256 = {
        (name := str(path.relative_to(partial))): known.get(name) or file_sha256(path)
        for path in sorted(partial.rglob("*"))
        if path.is_file()
    }
    checkpoint = Checkpoint(
        directory=str(into),
        scheme=plan.scheme,
        kv_cache=str(plan.kv_cache),
        num_bytes=sum((partial / name).stat().st_size for name in known),
        num_tensors=sum(len(file.names) for file in files),
        num_quantized=len(plan.quantized),
        bits_per_weight=bits_per_weight(plan),
        sha256=sha256,
        digest=digest_of(sha256),
    )
    manifest = {
        "producer": dict(PRODUCER),
        "scheme": checkpoint.scheme,
        "kv_cache": checkpoint.kv_cache,
        "source_digest": source.digest,
        "plan_digest": plan.digest,
        "digest": checkpoint.digest,
        "sha256": sha256,
        "tensors_xxh3": {file.path.name: file.tensors_xxh3 for file in files},
    }
    write_json(partial / MANIFEST_FILE, manifest)
    return checkpoint


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write one of a checkpoint's files of JSON."""
    doors.write_atomically(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
