"""Can a model be asked what the suite asks: has it a tokenizer, and a template for chats."""

from harness.artifacts import Suite
from harness.models import Source, refuse_no_tokenizer
from harness.verify import check_template


def check_asked(suite: Suite, source: Source) -> None:
    """Refuse a model that has no tokenizer, or no chat template that works where chats are asked.

    Raises:
        ModelError: with what is missing.
    """
    refuse_no_tokenizer(source.path)
    asks_chats = suite.apply_chat_template or (
        suite.smoke is not None and suite.smoke.apply_chat_template
    )
    if asks_chats:
        check_template(suite.name, source.path)
