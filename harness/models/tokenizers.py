"""Load a tokenizer, or say in one line why it cannot be loaded."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import ModelError
from harness.reading import bounds, read_json_object, refused_as

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tiktoken.model")
"""One of these holds the vocabulary."""
_OBJECTS = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json")


def has_tokenizer(folder: Path) -> bool:
    """Return whether a folder holds a vocabulary."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def refuse_no_tokenizer(folder: Path) -> None:
    """Refuse a folder without a vocabulary, of which transformers makes one that knows no word.

    Raises:
        ModelError: with what is missing.
    """
    if not has_tokenizer(folder):
        message = (
            f"'{folder}' has no tokenizer (none of {', '.join(TOKENIZER_FILES)}). Copy the model's "
            "tokenizer files there."
        )
        raise ModelError(message)


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """Return the tokenizer in a folder; code that lies there is never run.

    Raises:
        ModelError: there is none, or it cannot be loaded.
    """
    refuse_no_tokenizer(folder)
    with refused_as(ModelError, "Copy the model's tokenizer files there again."):
        for name in _OBJECTS:
            if os.path.lexists(folder / name):
                read_json_object(folder / name, most=bounds.INDEX_BYTES, infinity=True)
    from transformers import AutoTokenizer  # noqa: PLC0415 -- takes seconds

    try:
        loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False
        )
    except Exception as error:  # the tokenizers library raises plain Exceptions
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        message = (
            f"the tokenizer of '{folder}' cannot be loaded ({reason}). "
            "Copy the model's tokenizer files there again."
        )
        raise ModelError(message) from error
    return loaded
