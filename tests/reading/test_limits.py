"""Patterns and templates that would never end end in one line."""

import pickle
import re

import pytest

from harness.errors import ReasonCode, UnreadableError
from harness.reading import Chat, Raised, Refused, compiled, fits, render_chats

HELLO = Chat([{"role": "user", "content": "hello"}], {"add_generation_prompt": True})
PATTERNS = [
    r".*mlp\.gate$",
    r"model\.layers\.\d+\.mlp",
    r"(?!.*q_proj).*",
    r"(.*\.)?lm_head",
    r".*layers\.(0|1)\..*proj.*",
    r"[a-z]+(\.[a-z0-9]+)*",
    r"(a)\1",
    r"x{2,}",
]
NAMES = ["model.layers.0.mlp.gate", "lm_head", "model.lm_head", "aa", "xx", "x", "a.b.c"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_fits_what_python_says_wherever_it_is_matched(pattern: str) -> None:
    assert [fits(pattern, n) for n in NAMES] == [bool(re.match(pattern, n)) for n in NAMES]


@pytest.mark.usefixtures("short_limits")
@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)*b", ".*" * 12 + "b", "(?:a*)*b"])
def test_a_pattern_that_backtracks_without_end_is_named(pattern: str) -> None:
    with pytest.raises(UnreadableError, match=re.escape(f"regular expression '{pattern}' needs")):
        fits(pattern, "a" * 64 + "c")


@pytest.mark.usefixtures("short_limits")
def test_a_name_of_a_megabyte_makes_no_simple_pattern_slow() -> None:
    with pytest.raises(UnreadableError, match="needs more than"):
        fits(".*a.*b", "a" * 1_000_000)


@pytest.mark.parametrize("pattern", ["(", "*", "a{99999999999}", "(" * 5000, "a" * 100_000])
def test_a_pattern_that_is_none_says_so_and_fits_nothing(pattern: str) -> None:
    assert isinstance(compiled(pattern), Refused)
    assert not fits(pattern, "a")


def test_a_template_gives_the_text_that_transformers_would() -> None:
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    assert render_chats(template, [HELLO, HELLO]) == ["<user>hello"] * 2


@pytest.mark.parametrize(
    ("template", "kind", "is_refusal"),
    [
        ("{{ 1 // 0 }}", "ZeroDivisionError", False),
        ("{{ raise_exception('no system') }}", "TemplateError", True),
        ("{{ missing.field }}", "UndefinedError", True),
        ("{% for i in range(10**9) %}{% endfor %}", "OverflowError", False),
        ("{{", "TemplateSyntaxError", True),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError", False),
        ("{{ '%s %s' % 1 }}", "TypeError", False),
        ("{{ messages[7]['content'] }}", "UndefinedError", True),
        ("{{ ''.__class__.mro() }}", "SecurityError", True),
        ('{{ "\\ud800" }}', "UnicodeEncodeError", False),
    ],
)
def test_whatever_a_template_raises_is_told_and_the_next_is_rendered(
    template: str, kind: str, *, is_refusal: bool
) -> None:
    [raised] = render_chats(template, [HELLO])
    assert isinstance(raised, Raised)
    assert (raised.kind, raised.is_refusal) == (kind, is_refusal)
    assert render_chats("a", [HELLO]) == ["a"]


@pytest.mark.usefixtures("short_limits")
@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'a' * 10000000000 }}",
        "{{ 'a' * 200000000 }}",
        "{% set n = namespace(a='aa') %}{% for i in range(99) %}{% set n.a = n.a*9 %}{% endfor %}",
    ],
)
def test_a_template_that_never_ends_or_takes_all_memory_is_refused(template: str) -> None:
    with pytest.raises(UnreadableError, match="the chat template needs more"):
        render_chats(template, [HELLO])
    assert render_chats("a", [HELLO]) == ["a"]


def test_the_error_crosses_to_another_process() -> None:
    error = UnreadableError("it", "ends early", reason=ReasonCode.TRUNCATED_FILE)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 -- our own
    assert (str(again), again.why, again.reason) == (str(error), error.why, error.reason)
