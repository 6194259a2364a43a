"""Token ids that a model has no embedding for.

A tokenizer smaller than the embedding is usual, for rows are padded. The reverse is a fault: the
first text with such a token reads memory that is not there, or ends the server.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from harness.artifacts import TensorHeader
from harness.errors import UnreadableError
from harness.reading import bounds, read_json_object

_EMBEDDINGS = frozenset(
    {"embed", "embed_in", "embed_tokens", "embedding", "embeddings", "tok_embeddings"}
    | {"word_embeddings", "wte"}
)
"""Last parts of names of the layer that turns tokens into vectors."""
_ID_KEYS = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "suppress_tokens",
    "begin_suppress_tokens",
)
_VOCABULARIES = ("tokenizer.json", "tokenizer_config.json", "added_tokens.json", "vocab.json")


class _Rows(NamedTuple):
    """How many tokens a model has vectors for."""

    num_rows: int
    said_by: str


def ids_beyond_embedding(
    folder: Path, config: Mapping[str, object], tensors: Mapping[str, TensorHeader]
) -> list[str]:
    """Return a line for each place in a folder that names a token without a row in the embedding.

    Args:
        folder: of the model, with its tokenizer and generation settings.
        config: its config.json.
        tensors: of its weight files, by name.
    """
    rows = _rows(config, tensors)
    if rows is None:
        return []
    behind = f"and {rows.said_by} has {rows.num_rows} rows"
    return [
        f"{place} has the token id {number}, {behind}"
        for place, ids in _places(folder, config)
        if (number := max(ids, default=0)) >= rows.num_rows
    ]


def _rows(config: Mapping[str, object], tensors: Mapping[str, TensorHeader]) -> _Rows | None:
    """Return the rows of the largest embedding of tokens; encoders may have one of their own."""
    found = [
        _Rows(header.shape[0], name)
        for name, header in tensors.items()
        if len(header.shape) == 2 and _is_embedding(name)  # noqa: PLR2004  a matrix
    ]
    if found:
        return max(found)
    text = config.get("text_config")
    sizes = [part.get("vocab_size") for part in (text, config) if isinstance(part, Mapping)]
    return next((_Rows(n, "vocab_size of config.json") for n in sizes if type(n) is int), None)


def _is_embedding(name: str) -> bool:
    module, _, leaf = name.rpartition(".")
    return leaf in {"weight", "weight_packed"} and module.rpartition(".")[2] in _EMBEDDINGS


def _places(folder: Path, config: Mapping[str, object]) -> Iterator[tuple[str, Iterable[int]]]:
    """Yield what names tokens by their ids, and the ids."""
    text = config.get("text_config")
    yield from _settings("config.json", config)
    yield from _settings("text_config of config.json", text if isinstance(text, Mapping) else {})
    yield from _settings("generation_config.json", settings_in(folder / "generation_config.json"))
    for name in _VOCABULARIES:
        yield name, _ids_of_tokenizer(name, settings_in(folder / name))


def _settings(file: str, values: Mapping[str, object]) -> Iterator[tuple[str, Iterable[int]]]:
    for key in _ID_KEYS:
        value = values.get(key)
        yield f"{key} in {file}", _whole(value if isinstance(value, list) else [value])


def _ids_of_tokenizer(name: str, content: Mapping[str, object]) -> Iterable[int]:
    """Return the ids in a tokenizer's file, or the largest of those that are counted up."""
    if name == "tokenizer_config.json":
        decoder = content.get("added_tokens_decoder")
        return (
            [int(key) for key in decoder if is_token_id(key)] if isinstance(decoder, dict) else ()
        )
    if name != "tokenizer.json":
        return _whole(content.values())
    added, model = content.get("added_tokens"), content.get("model")
    entries = added if isinstance(added, list) else ()
    ids = _whole(entry.get("id") for entry in entries if isinstance(entry, dict))
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, list):  # a piece and its score each, in the order of the ids
        return [*ids, len(vocab) - 1]
    return [*ids, *_whole(vocab.values() if isinstance(vocab, dict) else ())]


def is_token_id(text: str) -> bool:
    """Return whether a key of `added_tokens_decoder` is a number, of no absurd length."""
    return text.isdecimal() and len(text) <= bounds.DIGITS


def _whole(values: Iterable[object]) -> list[int]:
    return [value for value in values if type(value) is int]


def settings_in(path: Path) -> Mapping[str, object]:
    """Return what a file holds; nothing where it cannot be read, which other checks say."""
    if not os.path.lexists(path):
        return {}
    try:
        return read_json_object(path, most=bounds.INDEX_BYTES, infinity=True)
    except UnreadableError:
        return {}
