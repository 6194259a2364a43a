"""Find the texts of a calibration set.

A set is `canary` or `default` (shipped), a JSON lines file, or one of a few public sets, read
over the network. Each line of a file has `{"text": "..."}`, or `{"input_ids": [...]}` for text
that is tokenized already. A file with one bad line is refused as a whole, with its line number:
a set that is silently smaller than its user believes calibrates another model than was meant.
"""

import hashlib
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from harness import offline, shipped
from harness.artifacts import CalibrationSpec, digest_of
from harness.doors import expanded
from harness.errors import DataError, UnreadableError
from harness.reading import iter_json_lines, open_regular

_SHUFFLE_BUFFER = 1_000  # rows that are held while a public set is read in a random order


class Text(NamedTuple):
    """One text, and where it was found."""

    content: str | tuple[int, ...]
    """Text, or token ids."""
    place: str
    """Such as `calibration.jsonl:17`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublicSet:
    """A data set on the Hugging Face Hub."""

    path: str
    config: str | None
    split: str
    column: str
    """Holds text, or a conversation as a list of messages with `content`."""


PUBLIC_SETS: Mapping[str, PublicSet] = {
    "c4": PublicSet(path="allenai/c4", config="en", split="train", column="text"),
    "cnn_dailymail": PublicSet(
        path="abisee/cnn_dailymail", config="3.0.0", split="train", column="article"
    ),
    "ultrachat_200k": PublicSet(
        path="HuggingFaceH4/ultrachat_200k", config=None, split="train_sft", column="messages"
    ),
    "wikitext": PublicSet(
        path="Salesforce/wikitext", config="wikitext-103-raw-v1", split="train", column="text"
    ),
}


def check_data(spec: CalibrationSpec) -> None:
    """Make sure that the set can be read, before anything runs.

    A file is read to its end; of a public set one text is fetched.

    Raises:
        DataError: it cannot.
    """
    next(iter_texts(spec))


def data_digest(spec: CalibrationSpec) -> str:
    """Return the sha256 of the file's contents, or of a public set's description.

    A public set is not pinned: the same name may give other texts on another day.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    if spec.data in PUBLIC_SETS:
        return digest_of(PUBLIC_SETS[spec.data])
    path = _locate(spec.data)
    with _readable(), open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def iter_texts(spec: CalibrationSpec) -> Iterator[Text]:
    """Yield the set's texts in the order that `spec.seed` gives.

    Raises:
        DataError: the set is unknown, missing, empty or malformed.
    """
    if spec.data in PUBLIC_SETS:
        kept = offline.kept_texts(spec.data, spec.seed)
        yield from _kept(*kept) if kept else _public_texts(spec.data, seed=spec.seed)
        return
    texts = _read_file(_locate(spec.data))
    random.Random(spec.seed).shuffle(texts)  # noqa: S311  # an order, not a secret
    yield from texts


def _kept(path: Path, texts: offline.KeptTexts) -> Iterator[Text]:
    """Yield the texts of a public set that were fetched, in the order of the seed.

    Raises:
        DataError: more are asked for than were fetched, which would be another calibration.
    """
    with _readable():
        for line in iter_json_lines(path):
            place = f"{texts.data}, text {line.number}"
            yield Text(content=_content(line.value, place), place=place)
    if not texts.is_whole:
        message = (
            f"'{path}' holds the first {texts.num_texts} texts of '{texts.data}', and more are "
            "asked for. Fetch as many with `harness prefetch --calib-size --calib-seq`."
        )
        raise DataError(message)


def _locate(data: str) -> Path:
    """Return the file of a set that is no public one."""
    if data == "canary":
        return shipped.canary() / "calibration.jsonl"
    if data == "default":
        return shipped.calibration() / "default.jsonl"
    path = expanded(data)
    if not os.path.lexists(path):
        message = (
            f"the calibration data '{data}' is no file and no known set. Use the path of a JSON "
            f"lines file, `canary`, `default`, or one of {', '.join(PUBLIC_SETS)}."
        )
        raise DataError(message)
    return path


def _read_file(path: Path) -> list[Text]:
    with _readable():
        texts = [
            Text(content=_content(line.value, place := f"{path}:{line.number}"), place=place)
            for line in iter_json_lines(path)
        ]
    if not texts:
        message = f"the calibration data '{path}' is empty. Give one JSON object a line."
        raise DataError(message)
    return texts


@contextmanager
def _readable() -> Iterator[None]:
    """Say of what cannot be read what it should have been.

    Raises:
        DataError: it cannot be read.
    """
    try:
        yield
    except UnreadableError as error:
        message = f"the calibration data cannot be read: {error} Give a file of UTF-8 JSON lines."
        raise DataError(message) from error


def _content(value: object, place: str) -> str | tuple[int, ...]:
    """Return the text or the token ids of one line."""
    if not isinstance(value, dict) or len({"text", "input_ids"} & value.keys()) != 1:
        raise _bad_line(place, "has not exactly one of 'text' and 'input_ids'")
    if "text" in value:
        if not isinstance(value["text"], str) or not value["text"].strip():
            raise _bad_line(place, "has a 'text' that is no text or is empty")
        return value["text"]
    ids = value["input_ids"]
    # bool is a subclass of int, and JSON's true is no token
    if not isinstance(ids, list) or not ids or any(type(i) is not int or i < 0 for i in ids):
        raise _bad_line(place, "has 'input_ids' that are no list of whole numbers from 0 on")
    return tuple(ids)


def _bad_line(place: str, what: str) -> DataError:
    return DataError(
        f'{place}: the line {what}. Each line must be {{"text": "..."}} or {{"input_ids": [...]}}.'
    )


def _public_texts(name: str, *, seed: int) -> Iterator[Text]:
    """Yield the texts of a public set, read over the network as they are needed."""
    # A second of import that files and shipped sets do without.
    from datasets import load_dataset  # noqa: PLC0415
    from datasets.exceptions import DatasetsError  # noqa: PLC0415

    public = PUBLIC_SETS[name]
    num_texts = 0
    try:
        rows = load_dataset(public.path, public.config, split=public.split, streaming=True)
        for row in rows.shuffle(seed=seed, buffer_size=_SHUFFLE_BUFFER):
            text = _text_of(row[public.column])
            if text.strip():
                num_texts += 1
                yield Text(content=text, place=f"{name}, text {num_texts}")
    except (OSError, DatasetsError, KeyError, ValueError) as error:
        reason = str(error).strip().splitlines()
        message = (
            f"the public set '{name}' cannot be read ({reason[0] if reason else error!r}). "
            "Connect to the network, or calibrate with `default` or a JSON lines file."
        )
        raise DataError(message) from error


def _text_of(value: object) -> str:
    """Return a text, or the contents of a conversation's messages below each other."""
    if isinstance(value, list):
        return "\n".join(str(message["content"]) for message in value)
    return str(value)
