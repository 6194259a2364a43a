"""Make one family: its model, checked to run and to load again, in all its layouts."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from scripts.families.build import build, text_model, write
from scripts.families.catalogue import find
from scripts.families.layouts import write_mxfp4, write_stacked, write_transposed

Writer = Callable[[Path, Path], None]

PUBLISHED: Mapping[str, tuple[str, Writer]] = {
    "gpt_oss": ("mxfp4", write_mxfp4),
    "qwen3_vl_moe": ("transposed", write_transposed),
}
"""By model type, the layout on the Hub that is neither what is saved nor what runs."""


def make(name: str, into: Path) -> list[Path]:
    """Write a family's checkpoints below `into` and return their folders; those there are kept.

    Raises:
        ValueError: the model does not run to finite numbers.
    """
    spec, saved = find(name), into / name
    if not saved.is_dir():
        model = build(spec)
        if not logits(model).isfinite().all():
            message = f"{name} answers with what is no number"
            raise ValueError(message)
        unfinished = _unfinished(saved)
        write(spec, model, unfinished)
        unfinished.rename(saved)
    return [saved, *_other_layouts(name, into)]


def logits(model: PreTrainedModel) -> Tensor:
    """Return what the model makes of 24 fixed bytes, (1, 24, vocabulary)."""
    ids = torch.randint(0, 256, (1, 24), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found: Tensor = text_model(model)(input_ids=ids, use_cache=False).logits
    return found.float()


def _other_layouts(name: str, into: Path) -> list[Path]:
    spec, saved = find(name), into / name
    made: list[Path] = []
    stacked = into / f"{name}-stacked"
    if not stacked.is_dir():
        model_class = getattr(transformers, spec.architecture)
        model = model_class.from_pretrained(saved, dtype=torch.bfloat16)
        if write_stacked(model, saved, unfinished := _unfinished(stacked)):
            unfinished.rename(stacked)
    made += [stacked] if stacked.is_dir() else []
    if spec.model_type in PUBLISHED:
        layout, write_published = PUBLISHED[spec.model_type]
        folder = into / f"{name}-{layout}"
        if not folder.is_dir():
            write_published(saved, unfinished := _unfinished(folder))
            unfinished.rename(folder)
        made.append(folder)
    return made


def _unfinished(folder: Path) -> Path:
    """Return an empty place beside a folder: one that is there is complete."""
    beside = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(beside, ignore_errors=True)
    return beside
