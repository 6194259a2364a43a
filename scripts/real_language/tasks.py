"""Make lm-eval tasks in English from WordNet, and suites of them.

`word` asks which word a definition defines, `kind` what a thing is a kind of, `ending` which word
ends a definition; each has four choices. `sum` asks for sums of small numbers, which the model has
to write.
"""

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from scripts.real_language.words import Noun, nouns, uses

SEED = 20
_MOST_ITEMS = 1200
_NUM_CHOICES = 4
_LEAST_USES = 3
_SHOTS = "2+3=5\n7+6=13\n12+9=21\n"
Item = dict[str, Any]


class Asked(NamedTuple):
    """How a suite asks a task."""

    tier: str
    metric: str
    filter: str
    margin: float
    flip_rate: float
    chance: float


_CHOICES = Asked("critical", "acc", "none", 0.05, 0.12, 1 / _NUM_CHOICES)
ASKED = {
    "real_word": _CHOICES,
    "real_kind": _CHOICES._replace(margin=0.06, flip_rate=0.15),
    "real_ending": _CHOICES,
    "real_sum": Asked("advisory", "exact_match", "remove_whitespace", 0.1, 0.2, 0.0),
}


def make_tasks(wordnet: Path, into: Path) -> None:
    """Write the tasks' definitions and items into a folder."""
    into.mkdir(parents=True, exist_ok=True)
    known = nouns(wordnet)
    common = _common(known, wordnet)
    draw = random.Random(SEED)  # noqa: S311 -- a repeatable choice
    makers: dict[str, Callable[[], Iterator[Item]]] = {
        "real_word": lambda: _word_items(common, draw),
        "real_kind": lambda: _kind_items(common, known, draw),
        "real_ending": lambda: _ending_items(common, draw),
        "real_sum": lambda: _sum_items(draw),
    }
    for name, make in makers.items():
        lines = [json.dumps(item) for item, _ in zip(make(), range(_MOST_ITEMS), strict=False)]
        (into / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        definition = yaml.safe_dump(_definition(name), sort_keys=False)
        (into / f"{name}.yaml").write_text(definition, encoding="utf-8")


def write_suite(path: Path, *, items: int, tasks: Path, margin_factor: float = 1.0) -> None:
    """Write a suite that asks so many items of each task."""
    rows = []
    for name, asked in ASKED.items():
        row = {"name": name, **asked._asdict(), "items": items, "num_fewshot": 0}
        row["margin"] = round(asked.margin * margin_factor, 4)
        rows.append(row)
    suite = {
        "version": 1,
        "name": path.stem,
        "tasks_from": [str(tasks)],
        "max_model_len": 512,
        "apply_chat_template": False,
        "seed": 1234,
        "batch_size": 64,
        "confidence": 0.95,
        "max_truncated": 0.02,
        "smoke": "general",
        "tasks": rows,
    }
    path.write_text(yaml.safe_dump(suite, sort_keys=False), encoding="utf-8")


def _common(known: dict[str, Noun] | Any, wordnet: Path) -> list[Noun]:  # noqa: ANN401
    """Return nouns that people use, with short definitions that do not name them."""
    counted = uses(wordnet)
    shortest, longest = 4, 14
    return [
        noun
        for noun in known.values()
        if re.fullmatch("[a-z]+", noun.word)
        and counted.get(noun.word, 0) >= _LEAST_USES
        and shortest <= len(noun.definition.split()) <= longest
        and noun.word not in noun.definition
    ]


def _item(prompt: str, right: str, wrong: Sequence[str], draw: random.Random) -> Item:
    choices = [right, *wrong]
    draw.shuffle(choices)
    return {"prompt": prompt, "choices": choices, "label": choices.index(right)}


def _others(common: Sequence[Noun], than: Noun, draw: random.Random) -> Iterator[Noun]:
    """Yield nouns of other fields, in random order."""
    for other in draw.sample(common, len(common)):
        if other.field != than.field and not set(other.words) & set(than.words):
            yield other


def _first_distinct(words: Iterator[str], not_: str) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < _NUM_CHOICES - 1:
        word = next(words)
        if word != not_:
            found[word] = None
    return list(found)


def _word_items(common: Sequence[Noun], draw: random.Random) -> Iterator[Item]:
    for noun in draw.sample(common, len(common)):
        wrong = _first_distinct((o.word for o in _others(common, noun, draw)), noun.word)
        yield _item(f"Definition: {noun.definition}.\nWord:", noun.word, wrong, draw)


def _kind_items(common: Sequence[Noun], known: Any, draw: random.Random) -> Iterator[Item]:  # noqa: ANN401
    def kind_of(noun: Noun) -> str:
        return known[noun.kinds[0]].word if noun.kinds else ""

    asked = [noun for noun in common if re.fullmatch("[a-z]+", kind_of(noun))]
    for noun in draw.sample(asked, len(asked)):
        kinds = (kind_of(other) for other in _others(asked, noun, draw))
        wrong = _first_distinct(kinds, kind_of(noun))
        article = "An" if noun.word[0] in "aeiou" else "A"
        yield _item(f"{article} {noun.word} is a kind of", kind_of(noun), wrong, draw)


def _ending_items(common: Sequence[Noun], draw: random.Random) -> Iterator[Item]:
    def ending(noun: Noun) -> str:
        return noun.definition.split()[-1]

    least = 8
    asked = [
        noun
        for noun in common
        if len(noun.definition.split()) >= least and re.fullmatch("[a-z]{4,}", ending(noun))
    ]
    for noun in draw.sample(asked, len(asked)):
        wrong = _first_distinct((ending(o) for o in _others(asked, noun, draw)), ending(noun))
        begin = noun.definition.rpartition(" ")[0]
        yield _item(f"{noun.word.capitalize()}: {begin}", ending(noun), wrong, draw)


def _sum_items(draw: random.Random) -> Iterator[Item]:
    pairs = [(a, b) for a in range(2, 60) for b in range(2, 40)]
    for a, b in draw.sample(pairs, len(pairs)):
        yield {"prompt": f"{_SHOTS}{a}+{b}=", "answer": str(a + b)}


def _definition(name: str) -> dict[str, object]:
    asked = ASKED[name]
    common = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": f"{name}.jsonl"}},
        "test_split": "test",
        "num_fewshot": 0,
        "doc_to_text": "{{prompt}}",
        "metric_list": [{"metric": asked.metric, "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }
    if asked.metric == "acc":
        return common | {
            "output_type": "multiple_choice",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "label",
        }
    return common | {
        "output_type": "generate_until",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6, "do_sample": False},
        "filter_list": [
            {
                "name": asked.filter,
                "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}],
            }
        ],
    }
