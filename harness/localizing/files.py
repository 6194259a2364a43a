"""The tensors of a checkpoint beside those that the recorded ranges give, bit for bit.

A tensor that is not there, is of another type or was not to be there is the export's: quantization
hands on what the plan says, and nothing else. Of values that differ, the codes tell. Where a
layer's codes are right, its ranges were used and a scale beside them was changed afterwards. Codes
that are those of another layer, the same ones in another order, or one and the same everywhere,
come of no rounding either. Only where the codes are others did quantization use other ranges, or
another arithmetic. What the export wrote down of its tensors before they were written decides where
it is there: files that are as it says hold what quantization handed on.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import torch
import xxhash
from torch import Tensor

from harness.artifacts import (
    CalibrationStats,
    Clue,
    OriginStage,
    QuantizedTensor,
    TensorHeader,
)
from harness.comparing.tensors import OpenedFiles, ratios
from harness.errors import HarnessError
from harness.localizing.case import Made
from harness.models import MANIFEST_FILE
from harness.models.dtypes import header_dtype
from harness.models.headers import read_headers
from harness.quantize import quantize
from harness.reading import read_json_object
from harness.verify import verify

_CODES = "weight"
_DAMAGE = 0.01
"""Share of a weight's bytes up to which other codes are damage and no other rounding."""
_PLAIN = "none"
_IN_OTHER_ORDER = "holds what quantization made in another order"


class _Off(NamedTuple):
    """One tensor whose values differ."""

    name: str
    message: str
    is_plain: bool = False
    """Whether it was to be copied."""
    no_rounding: bool = False
    """Whether it shows itself that its codes come of no rounding."""
    content: bytes = b""
    """Hash of codes that differ; empty for all else."""

    @property
    def codes(self) -> str:
        """Return the name of the codes of its layer."""
        return f"{self.name.rpartition('.')[0]}.{_CODES}"


def tensor_clues(made: Made, stats: CalibrationStats, folder: Path, device: str) -> Iterator[Clue]:
    """Yield what differs between the files in `folder` and what `stats` give.

    Raises:
        RejectedError: no scales can be made of `stats`.
    """
    try:
        headers = read_headers(folder)
    except HarnessError as error:
        yield _clue(OriginStage.EXPORT, folder.name, f"cannot be read: {error}")
        return
    meant, wanted, off = _as_meant(folder), set[str](), list[_Off]()
    codes: dict[bytes, str] = {}
    with ExitStack() as opened:
        files = OpenedFiles(folder, opened)
        skipped = weights_of_inputs(made)
        for part in quantize(made.source, made.plan, stats, device=device, done=skipped):
            wanted |= part.tensors.keys()
            codes |= {
                _hash(tensor): name
                for name, tensor in part.tensors.items()
                if part.format != _PLAIN and name.endswith(f".{_CODES}")
            }
            yield from _missing(part, headers)
            off += _compared(part, headers, files)
    for name in headers:
        if name not in wanted and name.rpartition(".")[0] not in skipped:
            yield _clue(OriginStage.EXPORT, name, "is in the files and was not to be made")
    judge = _Judge({one.name: one for one in off}, codes, meant)
    yield from (judge.clue(one) for one in off)


def weights_of_inputs(made: Made) -> frozenset[str]:
    """Return the layers whose weights cannot be made anew from ranges alone.

    An algorithm that asks what a layer's inputs are like leaves no record of these.
    """
    if not made.plan.algorithm.needs_inputs:
        return frozenset()
    return frozenset(one.linear.name for one in made.plan.quantized)


def _missing(part: QuantizedTensor, headers: Mapping[str, TensorHeader]) -> Iterator[Clue]:
    for name, tensor in part.tensors.items():
        found = headers.get(name)
        if found is None:
            yield _clue(OriginStage.EXPORT, name, "was made and is not in the files")
        elif (found.dtype, found.shape) != (header_dtype(tensor.dtype), tuple(tensor.shape)):
            shown = f"{found.dtype} {list(found.shape)}"
            was = f"{header_dtype(tensor.dtype)} {list(tensor.shape)}"
            yield _clue(OriginStage.EXPORT, name, f"is {shown} in the files and was made as {was}")


def _compared(
    part: QuantizedTensor, headers: Mapping[str, TensorHeader], files: OpenedFiles
) -> Iterator[_Off]:
    """Yield the tensors of one part that are there with other values."""
    found = {}
    for name, tensor in part.tensors.items():
        header = headers.get(name)
        typed = (header_dtype(tensor.dtype), tuple(tensor.shape))
        if header is not None and (header.dtype, header.shape) == typed:
            found[name] = files.tensor(name, header)
    for name, stored in found.items():
        if not torch.equal(_bytes(stored), _bytes(part.tensors[name])):
            yield _off(name, part.tensors[name], stored, is_plain=part.format == _PLAIN)


def _off(name: str, made: Tensor, found: Tensor, *, is_plain: bool) -> _Off:
    ours, theirs = _bytes(made), _bytes(found)
    num_other = int((ours != theirs).sum())
    share = f"differs in {num_other} of {ours.numel()} bytes from what quantization made"
    if is_plain:
        return _Off(name, share.replace("quantization made", "the source has"), is_plain=True)
    if not name.endswith(f".{_CODES}"):
        return _Off(name, _moved(made, found) or share)
    if int(theirs.min()) == int(theirs.max()):
        message = f"holds nothing but the byte {int(theirs[0])}"
    elif torch.equal(_halves(ours), _halves(theirs)):
        message = _IN_OTHER_ORDER
    else:
        is_damage = num_other < _DAMAGE * ours.numel()
        return _Off(name, share, no_rounding=is_damage, content=_hash(found))
    return _Off(name, message, no_rounding=True, content=_hash(found))


def _moved(made: Tensor, found: Tensor) -> str:
    """Say by which factor scales moved; empty where there is none to say."""
    ends, num_unusual = ratios(made, found)
    if num_unusual and found.numel() == 1:
        return f"is {float(found):g} where quantization made {float(made):g}"
    if num_unusual:
        return f"holds {num_unusual} numbers that are no scale, of which quantization makes none"
    if found.element_size() == 1 and torch.equal(_halves(made), _halves(found)):
        return _IN_OTHER_ORDER
    if not ends:
        return ""
    low, middle, high = (f"{end:.4g}" for end in ends)
    times = low if low == high else f"{low} to {high} (median {middle})"
    return f"is {times} times what quantization made"


class _Judge(NamedTuple):
    """Says whose work a tensor is whose values differ."""

    off: Mapping[str, _Off]
    made: Mapping[bytes, str]
    """Names of the codes that were made, by their hash."""
    meant: bool | None

    def clue(self, one: _Off) -> Clue:
        """Return what is wrong with it."""
        message = one.message
        if (other := self.made.get(one.content)) is not None:
            message = f"holds what quantization made for {other}"
        return _clue(self._stage(one), one.name, f"of the files {message}")

    def _stage(self, one: _Off) -> OriginStage:
        """Where codes are right, the ranges were used, and what is beside them was changed."""
        codes = self.off.get(one.codes)
        is_exchanged = codes is not None and codes.content in self.made
        if one.is_plain or is_exchanged:
            return OriginStage.EXPORT
        is_rounding = codes is not None and not codes.no_rounding
        is_its_work = is_rounding if self.meant is None else self.meant
        return OriginStage.QUANTIZATION if is_its_work else OriginStage.EXPORT


def _as_meant(folder: Path) -> bool | None:
    """Return whether the files hold what the export had before it wrote; None if it left no word.

    Its manifest has hashes of the tensors, which were taken before they were written.
    """
    try:
        if "tensors_xxh3" not in read_json_object(folder / MANIFEST_FILE):
            return None
        report = verify(folder)
    except HarnessError:
        return None
    return all(check.passed for check in report.checks if check.id == "files-match-manifest")


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _halves(tensor: Tensor) -> Tensor:
    """Return how often each half of a byte comes: the same in any order of codes or block scales.

    Codes of 4 bits may have changed places within their byte.
    """
    codes = _bytes(tensor)
    return torch.bincount(torch.cat([codes >> 4, codes & 0xF]).long(), minlength=16)


def _hash(tensor: Tensor) -> bytes:
    return xxhash.xxh3_128_digest(_bytes(tensor).numpy().data)


def _clue(stage: OriginStage, subject: str, message: str) -> Clue:
    return Clue(stage=stage, subject=subject, message=f"{subject} {message}")
