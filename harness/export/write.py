"""Write the checkpoint: all of it, or nothing under its name.

Everything goes to `<into>.partial`. Only when every shard was read back, every sidecar copied and
every file flushed is the folder renamed to `into`, so a run that is killed at any moment leaves no
folder that looks complete. What stood at `into` before is replaced at that moment and not sooner.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from harness.artifacts import Checkpoint, QuantizedTensor, QuantPlan, digest_of
from harness.errors import DiskFullError, ReasonCode, RunDirectoryError, StageError
from harness.export.config import PRODUCER, config_with_quantization, hf_quant_config
from harness.export.shards import Shard, write_shards
from harness.export.sidecars import copy_sidecars
from harness.export.size import bits_per_weight, expected_tensors, required_bytes
from harness.models import Source

_log = logging.getLogger("harness.export")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MANIFEST = "harness.json"
MAX_SHARD_BYTES = 4 * 2**30


def export(
    source: Source,
    plan: QuantPlan,
    tensors: Iterable[QuantizedTensor],
    *,
    into: Path,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Checkpoint:
    """Write `tensors` and all that belongs to them to the folder `into`.

    Raises:
        DiskFullError: no space is left; nothing of the new checkpoint stays.
        RunDirectoryError: `into` holds something that is no checkpoint of harness.
        StageError: a tensor is missing or comes twice, or a file reads back differently.
    """
    check_target(source, into)
    into.parent.mkdir(parents=True, exist_ok=True)
    with _partial_folder(into) as partial, _disk_full(source, plan, into):
        shards = _write_tensors(source, plan, tensors, partial, max_shard_bytes)
        _write_json(partial / "hf_quant_config.json", hf_quant_config(plan))
        _write_json(partial / "config.json", config_with_quantization(source.config, plan))
        copy_sidecars(source.path, partial)
        checkpoint = _describe(source, plan, shards, partial, into)
        _flush(partial)
        _replace(into, partial)
    _log.info("export: %.2f GiB in %d file(s)", checkpoint.num_bytes / 2**30, len(shards))
    return checkpoint


def _write_tensors(
    source: Source,
    plan: QuantPlan,
    tensors: Iterable[QuantizedTensor],
    partial: Path,
    max_shard_bytes: int,
) -> list[Shard]:
    """Write all shards under their final names, and the index if there is more than one."""
    shards = []
    for shard in write_shards(_flat(tensors), partial, max_bytes=max_shard_bytes):
        shards.append(shard)
        _log.info("export: shard %d written and read back", len(shards))
    _check_complete(source, plan, {name for shard in shards for name in shard.names})
    named = [
        shard._replace(path=shard.path.rename(partial / _shard_name(index, len(shards))))
        for index, shard in enumerate(shards, start=1)
    ]
    if len(named) > 1:
        index = {
            "metadata": {"total_size": sum(shard.data_bytes for shard in named)},
            "weight_map": {n: shard.path.name for shard in named for n in sorted(shard.names)},
        }
        _write_json(partial / "model.safetensors.index.json", index)
    return named


def _flat(tensors: Iterable[QuantizedTensor]) -> Iterator[tuple[str, Tensor]]:
    for quantized in tensors:
        yield from quantized.tensors.items()


def _check_complete(source: Source, plan: QuantPlan, written: set[str]) -> None:
    expected = expected_tensors(source, plan)
    if wrong := sorted(expected ^ written):
        which = "missing" if wrong[0] in expected else "not expected"
        message = (
            f"the checkpoint would not be what the plan says: {len(wrong)} tensor(s) differ, such "
            f"as '{wrong[0]}', which is {which}. Nothing was kept; report this as a bug."
        )
        raise StageError(message, reason=ReasonCode.READ_BACK_MISMATCH)


def _shard_name(index: int, num_shards: int) -> str:
    if num_shards == 1:
        return "model.safetensors"
    return f"model-{index:05d}-of-{num_shards:05d}.safetensors"


def _describe(
    source: Source, plan: QuantPlan, shards: list[Shard], partial: Path, into: Path
) -> Checkpoint:
    """Write the manifest and return the noun."""
    known = {shard.path.name: shard.sha256 for shard in shards}
    sha256 = {
        (name := str(path.relative_to(partial))): known.get(name) or _sha256(path)
        for path in sorted(partial.rglob("*"))
        if path.is_file()
    }
    checkpoint = Checkpoint(
        directory=str(into),
        scheme=plan.scheme,
        kv_cache=str(plan.kv_cache),
        num_bytes=sum((partial / name).stat().st_size for name in known),
        num_tensors=sum(len(shard.names) for shard in shards),
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
    }
    _write_json(partial / MANIFEST, manifest)
    return checkpoint


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def check_target(source: Source, into: Path) -> None:
    """Refuse to replace what harness did not write, and to write among what it reads.

    Raises:
        RunDirectoryError: `into` holds something that is no checkpoint of harness, or lies within
            the model's folder.
    """
    if into.resolve().is_relative_to(source.path.resolve()):
        message = f"'{into}' lies within the model '{source.path}'. Choose a folder outside of it."
        raise RunDirectoryError(message)
    if not into.exists() or (into / MANIFEST).is_file():
        return
    if not into.is_dir() or any(into.iterdir()):
        message = (
            f"'{into}' exists and is no checkpoint of harness. Choose another folder, or remove it."
        )
        raise RunDirectoryError(message)


@contextmanager
def _partial_folder(into: Path) -> Iterator[Path]:
    """Give a fresh folder beside `into`; whatever is left of it at the end is removed."""
    partial = into.with_name(f"{into.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _disk_full(source: Source, plan: QuantPlan, into: Path) -> Iterator[None]:
    """Turn the system's refusal to write into one line that says how much space is needed."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        message = (
            f"no space left while writing '{into}': the checkpoint needs "
            f"{required_bytes(source, plan)} bytes. Free some, or choose another disk."
        )
        raise DiskFullError(message) from error


def _flush(folder: Path) -> None:
    """Force all files and folders to the disk."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _replace(into: Path, partial: Path) -> None:
    """Put the complete folder where it belongs; an older one is removed afterwards."""
    old = into.with_name(f"{into.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if into.exists():
        into.rename(old)
    partial.rename(into)
    shutil.rmtree(old, ignore_errors=True)
