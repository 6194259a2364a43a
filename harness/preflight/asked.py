"""Can a model be asked what the suite asks: its tokenizer, chat template, positions and room."""

from collections.abc import Iterator, Mapping
from functools import partial

from harness import score
from harness.artifacts import Suite
from harness.errors import SuiteError
from harness.models import Source, refuse_no_tokenizer
from harness.preflight.problems import Problems
from harness.verify import check_template

_ROPE = ("rope_scaling", "rope_parameters")


def note_asked(problems: Problems, suite: Suite, source: Source) -> None:
    """Note why a model cannot read, or has no room for, what it is asked.

    It may have no tokenizer, no chat template that works where chats are asked, or fewer positions
    than the suite's max_model_len. Prompts of own tasks are counted in its tokens; those of shipped
    tasks are known to be short, but not whether thoughts leave room for them.
    """
    is_sound = not any(isinstance(error, SuiteError) for error in problems.found)
    problems.attempt(partial(_check_positions, suite, source))
    can_read = problems.attempt(partial(_reads, suite, source))
    if is_sound and can_read and (suite.tasks_from or suite.thinking):
        found = problems.attempt(partial(score.cut_or_unsayable, suite, source.path))
        problems.note(found or ())


def _reads(suite: Suite, source: Source) -> bool:
    """Return True.

    Raises:
        ModelError: there is no tokenizer, or no chat template that works where one is needed.
    """
    refuse_no_tokenizer(source.path)
    asks_chats = suite.apply_chat_template or (
        suite.smoke is not None and suite.smoke.apply_chat_template
    )
    if asks_chats or (suite.nel is not None and suite.nel.chats):
        check_template(suite.name, source.path)
    return True


def _check_positions(suite: Suite, source: Source) -> None:
    most = positions_of(source)
    if most is not None and suite.max_model_len > most:
        message = (
            f"suite '{suite.name}' has a max_model_len of {suite.max_model_len} tokens, and "
            f"'{source.name}' has {most} positions. Set max_model_len to at most {most}."
        )
        raise SuiteError(message)


def positions_of(source: Source) -> int | None:
    """Return the most tokens that a model can take, positions that are stretched included."""
    text = source.config.get("text_config", source.config)
    if source.max_positions is None or not isinstance(text, Mapping):
        return None
    stretched = [n for key in _ROPE for n in _stretched(text.get(key), source.max_positions)]
    return max([source.max_positions, *stretched])


def _stretched(value: object, most: int) -> Iterator[int]:
    """Yield how many positions settings of rotary positions make; for each kind of layer.

    Where they name the positions that the model was first trained on, it is those that the factor
    stretches, and `most` holds the result already.
    """
    if isinstance(value, Mapping):
        factor, original = value.get("factor"), value.get("original_max_position_embeddings")
        if isinstance(factor, int | float):
            yield int(factor * (original if isinstance(original, int) else most))
        for inner in value.values():
            yield from _stretched(inner, most)
