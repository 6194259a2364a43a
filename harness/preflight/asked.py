"""Can a model be asked what the suite asks: has it a tokenizer, and a template for chats."""

from harness.artifacts import Suite
from harness.errors import ModelError
from harness.models import Source
from harness.verify import TOKENIZER_FILES, check_template


def check_asked(suite: Suite, source: Source) -> None:
    """Refuse a model that has no tokenizer, or no chat template that works where chats are asked.

    Raises:
        ModelError: with what is missing.
    """
    if not any((source.path / name).is_file() for name in TOKENIZER_FILES):
        message = (
            f"'{source.name}' has no tokenizer: none of {', '.join(TOKENIZER_FILES)}. Copy the "
            "model's tokenizer files there."
        )
        raise ModelError(message)
    asks_chats = suite.apply_chat_template or (
        suite.smoke is not None and suite.smoke.apply_chat_template
    )
    if asks_chats:
        check_template(suite.name, source.path)
