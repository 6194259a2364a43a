"""Prompts in tokens, and where answers end: the same for every engine."""

from collections.abc import Callable
from typing import Any

import pytest
from lm_eval.models.huggingface import HFLM
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from harness.artifacts import Suite
from harness.errors import ModelError, SuiteError
from harness.score import check_suite
from harness.score.asking import Limits, Prompts, Thoughts
from harness.score.generation import generate
from harness.score.recording import Finish
from tests.score.conftest import make_model, make_tokenizer

Make = Callable[..., Any]
THINK = Limits(stops=("\n",), answer_budget=3, thoughts=Thoughts("/", 3))


@pytest.fixture
def first_token() -> PreTrainedTokenizerFast:
    """A tokenizer that puts `<s>` before whatever it reads."""
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    post = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.convert_tokens_to_ids("<s>"))]
    )
    tokenizer.backend_tokenizer.post_processor = post
    return tokenizer


@pytest.mark.parametrize("text", ["a", "<s>a", " a\n", "<|end|>a"])
@pytest.mark.parametrize("has_first", [True, False])
def test_tokens_are_those_of_lm_evals_hugging_face_model(
    first_token: PreTrainedTokenizerFast, suite: Make, text: str, *, has_first: bool
) -> None:
    tokenizer = first_token if has_first else make_tokenizer()
    theirs = HFLM(pretrained=make_model(tokenizer, {}), tokenizer=tokenizer, max_length=32)
    ours = Prompts(tokenizer, suite(), max_length=32)
    for special in (None, True, False):
        assert ours.encode(text, special) == theirs.tok_encode(text, add_special_tokens=special)
    assert ours.prefix == theirs.prefix_token_id


def test_a_template_that_knows_no_system_gets_none(suite: Make) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
        "{{ m.content }}{% endfor %}{{ enable_thinking }}"
    )
    history = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    assert Prompts(tokenizer, suite(), max_length=32).render(history) == "uFalse"
    thinking = suite(thinking=True)
    assert Prompts(tokenizer, thinking, max_length=32).render(history) == "uTrue"


def test_a_model_in_process_thinks_past_its_stop_strings() -> None:
    tokenizer = make_tokenizer()
    successors = {"<": "\n", "\n": "/", "/": "b", "b": "<|end|>", "k": "k"}
    model = make_model(tokenizer, successors)
    prompts = [tokenizer.encode("<"), tokenizer.encode("k")]
    ended, endless = generate(model, tokenizer, prompts, THINK)
    assert (ended.text, ended.finish) == ("b", Finish.STOP)
    assert (endless.text, endless.finish) == ("", Finish.THOUGHTS_CUT)


@pytest.mark.usefixtures("tasks")
def test_a_suite_that_lets_models_think_says_how(spec: Make, suite: Make) -> None:
    complete = {"think_end_token": "</think>", "thinking_budget": 5, "apply_chat_template": True}

    def check(*tasks: object, **changes: object) -> None:
        made: Suite = suite(*tasks, **({"thinking": True} | complete | changes))
        check_suite(made)

    check(spec())
    for missing in ({"think_end_token": None}, {"thinking_budget": 0}):
        with pytest.raises(SuiteError, match="It also needs think_end_token"):
            check(spec(), **missing)
    with pytest.raises(SuiteError, match="has a thinking_budget but thinking is off"):
        check(spec(), thinking=False)
    with pytest.raises(SuiteError, match="may think for 30 tokens and answer with 6, which leaves"):
        check(spec(), thinking_budget=30)
    own = spec(thinking_budget=5)
    check(own, thinking_budget=0)
    with pytest.raises(SuiteError, match="It also needs think_end_token"):
        check(own, spec("tiny_other"), thinking_budget=0)
    with pytest.raises(SuiteError, match="has a thinking_budget of a task but thinking is off"):
        check(own, thinking=False, thinking_budget=0)
    with pytest.raises(SuiteError, match="may think for 26 tokens and answer with 6"):
        check(spec(thinking_budget=26))
    with pytest.raises(SuiteError, match="reads given texts"):
        check(spec("tiny_choice", metric="acc", items=2))


@pytest.mark.usefixtures("short_limits")
@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ 1 // 0 }}", "raises ZeroDivisionError"),
        ("{{ raise_exception('never') }}", "raises TemplateError: never"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "needs"),
        (None, "has no chat template"),
    ],
)
def test_a_template_that_fails_is_one_line(suite: Make, template: str | None, why: str) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(ModelError, match=why):
        Prompts(tokenizer, suite(), max_length=64).render([{"role": "user", "content": "a"}])


def test_a_chat_becomes_what_the_tokenizer_makes_of_it(suite: Make) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}{{ enable_thinking }}"
    )
    prompts = Prompts(tokenizer, suite(), max_length=64)
    history = [{"role": "user", "content": "a \n"}, {"role": "assistant", "content": "b"}]
    for asks in (True, False):
        theirs = tokenizer.apply_chat_template(
            history,
            tokenize=False,
            add_generation_prompt=asks,
            continue_final_message=not asks,
            enable_thinking=False,
        )
        assert prompts.render(history, add_generation_prompt=asks) == theirs
