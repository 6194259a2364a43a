"""Whether two models are asked the same: their tokenizers must make the same tokens of a text.

Each gets the tokens that its own tokenizer makes, chats included. Where two differ, a difference of
scores says nothing about the weights, and it would be seen at the end, or not at all.
"""

from collections.abc import Iterator
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from harness.artifacts import Endpoint, Suite
from harness.errors import IncomparableError
from harness.models import load_tokenizer
from harness.score.asking import Encoder

_TEXT = "Two words, 3 digits (0.25) and a line\nmore: if x == 1: return 'äöü' # 漢字 🙂"
_CHAT = (("system", "Answer."), ("user", "What is 1 + 1?"), ("assistant", "2"), ("user", "Why?"))


def check_same_prompts(baseline: Endpoint, candidate: Endpoint, suite: Suite) -> None:
    """Refuse two servers that would be asked other tokens for the same question.

    Raises:
        IncomparableError: they would, with the first difference.
        ModelError: a tokenizer cannot be loaded, or has no template where chats are asked.
    """
    if baseline.protocol != candidate.protocol:
        message = (
            f"the baseline is asked by {baseline.protocol} and the candidate by "
            f"{candidate.protocol}: chats of one would be rendered here and of the other by its "
            "server. Type both addresses up to /v1, or both up to /chat/completions."
        )
        raise IncomparableError(message)
    if baseline.tokenizer == candidate.tokenizer:
        return
    left, right = (load_tokenizer(Path(one.tokenizer)) for one in (baseline, candidate))
    for what, ours, theirs in _compared(left, right, suite):
        if ours != theirs:
            message = (
                f"the tokenizers of the deployments differ in {what}: '{baseline.tokenizer}' and "
                f"'{candidate.tokenizer}'. Serve the same ones, or name one with --tokenizer."
            )
            raise IncomparableError(message)


def check_same_questions(baseline: Path, candidate: Path, suite: Suite) -> None:
    """Refuse a checkpoint that reads a text or a chat otherwise than its baseline.

    Tokens that one of them has more are no matter, for no question has them.

    Args:
        baseline: folder of the unquantized model.
        candidate: folder of the checkpoint.
        suite: what both are asked.

    Raises:
        IncomparableError: it does, with what differs.
        ModelError: a tokenizer cannot be loaded, or its template fails.
    """
    left, right = load_tokenizer(baseline), load_tokenizer(candidate)
    for what, ours, theirs in _read(left, right, suite):
        if ours != theirs:
            message = (
                f"'{candidate}' and its baseline '{baseline}' differ in {what}, so that they would "
                "be asked other questions. Copy the baseline's tokenizer and chat template into "
                "the checkpoint."
            )
            raise IncomparableError(message)


def _compared(
    left: PreTrainedTokenizerBase, right: PreTrainedTokenizerBase, suite: Suite
) -> Iterator[tuple[str, object, object]]:
    yield "their vocabulary", left.get_vocab(), right.get_vocab()
    ours, theirs = (Encoder(one, thinking=suite.thinking) for one in (left, right))
    yield "the token that ends an answer", ours.end, theirs.end
    yield from _read(left, right, suite)


def _read(
    left: PreTrainedTokenizerBase, right: PreTrainedTokenizerBase, suite: Suite
) -> Iterator[tuple[str, object, object]]:
    ours, theirs = (Encoder(one, thinking=suite.thinking) for one in (left, right))
    yield "the tokens of a text", ours.encode(_TEXT), theirs.encode(_TEXT)
    if suite.apply_chat_template or (suite.smoke and suite.smoke.apply_chat_template):
        chat = [{"role": role, "content": text} for role, text in _CHAT]
        yield "what their templates make of a chat", ours.render(chat), theirs.render(chat)
