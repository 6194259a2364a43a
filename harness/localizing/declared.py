"""What lies beside a checkpoint's weights, beside what the export makes of plan and source."""

import filecmp
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness import __version__
from harness.artifacts import Clue, OriginStage, Part
from harness.comparing.fields import field_differences
from harness.errors import HarnessError
from harness.export.config import config_with_quantization, hf_quant_config
from harness.localizing.case import Made
from harness.models import sidecars
from harness.reading import read_json_object

_CONFIG, _HF_CONFIG = "config.json", "hf_quant_config.json"
_LISTS = frozenset({"ignore", "exclude_modules"})
_MAKER = "producer"
_NUM_SHOWN = 3


def declaration_clues(made: Made, folder: Path) -> Iterator[Clue]:
    """Yield what the files declare otherwise, and what beside the weights is not the source's."""
    expected = {
        _CONFIG: config_with_quantization(made.source.config, made.plan),
        _HF_CONFIG: hf_quant_config(made.plan),
    }
    for name, content in expected.items():
        yield from _of_config(folder / name, content)
    for name, path in sidecars(made.source.path).items():
        ours = folder / name
        if not ours.is_file():
            yield _clue(name, "is the source's and is not in the files")
        elif not filecmp.cmp(path, ours, shallow=False):
            yield _clue(name, "of the files is not the source's")


def _of_config(path: Path, expected: Mapping[str, object]) -> Iterator[Clue]:
    try:
        found = read_json_object(path)
    except HarnessError as error:
        yield _clue(path.name, f"cannot be read: {error}")
        return
    # Another version of harness may have spelled the lists otherwise.
    is_ours = _maker_of(found) in (None, __version__)
    for one in field_differences(Part.CHECKPOINT, expected, found):
        key = one.what.rpartition(".")[2]
        if f".{_MAKER}." in f".{one.what}.":
            continue
        said = f"says {one.b} for {one.what}, where the plan says {one.a}"
        if one.a is None or one.b is None:
            said = f"{'lacks' if one.b is None else 'has besides'} {one.what}"
        if key in _LISTS:
            said = f"has another list of {one.what}: {_of_lists(expected, found, one.what)}"
        yield Clue(
            stage=OriginStage.EXPORT,
            subject=path.name,
            message=f"{path.name} of the files {said}",
            decisive=is_ours,
        )


def _of_lists(expected: Mapping[str, object], found: Mapping[str, object], path: str) -> str:
    """Say what one list lacks and what it has besides."""
    ours, theirs = (set(_entries(values, path)) for values in (expected, found))
    parts = (("without", sorted(ours - theirs)), ("with", sorted(theirs - ours)))
    return ", ".join(
        f"{word} {', '.join(names[:_NUM_SHOWN])}"
        + (f" and {len(names) - _NUM_SHOWN} more" if len(names) > _NUM_SHOWN else "")
        for word, names in parts
        if names
    )


def _entries(values: object, path: str) -> list[str]:
    for key in path.split("."):
        values = values.get(key) if isinstance(values, Mapping) else None
    return [str(one) for one in values] if isinstance(values, list) else []


def _maker_of(values: Mapping[str, object]) -> object:
    maker = values.get(_MAKER)
    for inner in values.values():
        if maker is None and isinstance(inner, Mapping):
            maker = inner.get(_MAKER)
    return maker.get("version") if isinstance(maker, Mapping) else None


def _clue(subject: str, message: str) -> Clue:
    return Clue(stage=OriginStage.EXPORT, subject=subject, message=f"{subject} {message}")
