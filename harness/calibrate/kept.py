"""Keep the texts of a public set that a calibration takes, for a machine without a network."""

import json
from collections.abc import Iterator
from pathlib import Path

from harness.artifacts import CalibrationSpec
from harness.calibrate.data import PUBLIC_SETS, Text, iter_texts
from harness.calibrate.samples import read_samples
from harness.doors import written
from harness.models import Source
from harness.offline import KeptTexts


def is_public(spec: CalibrationSpec) -> bool:
    """Return whether the set is one that is read over the network."""
    return spec.data in PUBLIC_SETS


def keep_texts(spec: CalibrationSpec, source: Source, folder: Path, name: str) -> KeptTexts:
    """Write the texts that calibrating takes, in their order, to the file `name` in `folder`.

    Raises:
        DataError: the set cannot be read.
    """
    taken: list[Text] = []
    is_whole = False

    def noted() -> Iterator[Text]:
        nonlocal is_whole
        for text in iter_texts(spec):
            taken.append(text)
            yield text
        is_whole = True

    read_samples(spec, source, noted())
    with written(folder / name) as file:
        for text in taken:
            file.write(json.dumps({"text": text.content}).encode() + b"\n")
    return KeptTexts(
        data=spec.data, seed=spec.seed, file=name, num_texts=len(taken), is_whole=is_whole
    )
