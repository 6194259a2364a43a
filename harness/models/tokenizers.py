"""Load a tokenizer, or say in one line why it cannot be loaded."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import ModelError
from harness.reading import bounds, read_json_object, refused_as

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
_OBJECTS = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json")


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """Return the tokenizer in a folder; code that lies there is never run.

    Raises:
        ModelError: there is none, or it cannot be loaded.
    """
    # Without any of these transformers makes a tokenizer that knows no word, and says nothing.
    if not any((folder / name).is_file() for name in _VOCABULARIES):
        message = (
            f"'{folder}' has no tokenizer (none of {', '.join(_VOCABULARIES)}). Copy the model's "
            "tokenizer files there."
        )
        raise ModelError(message)
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
