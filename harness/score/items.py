"""What is wrong with the items of a local task: every prompt, choice and answer is rendered.

lm-eval renders an item when it is asked; what an item lacks became the text `None` then, and an
answer that no choice has counted as wrong for ever. Here each kind of fault is told once, with how
many items have it and where the first one is.
"""

import ast
import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jinja2

from harness.artifacts import TaskSpec
from harness.score.local_data import Item
from harness.score.templating import templates
from harness.tasks import as_list

_SHOWN = 40
_LEAST_CHOICES = 2
_CHOICE, _ROLLING = "multiple_choice", "loglikelihood_rolling"
_CHANCE_SLACK = 0.02
Splits = Mapping[str, Sequence[Item]]


class _FaultError(Exception):
    """One thing that is wrong with one item: what, what to do, and what is there instead."""

    def __init__(self, what: str, fix: str, found: str) -> None:
        super().__init__(what)
        self.what, self.fix, self.found = what, fix, found


def _fault(what: str, fix: str, *, found: str = "") -> _FaultError:
    return _FaultError(what, fix, found)


def _no_list(made: object) -> _FaultError:
    fix = "Give a list, or the name of a field that is one."
    return _fault("doc_to_choice gives no list", fix, found=_shown(made))


def _shown(value: object) -> str:
    return f": {value!r:.{_SHOWN}}"


@dataclass(slots=True)
class _Found:
    """Faults of some items, by what they are."""

    total: int
    what_they_are: str = "items"
    _places: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def add(self, fault: _FaultError, where: str) -> None:
        self._places.setdefault((fault.what, fault.fix), []).append(where + fault.found)

    def lines(self) -> Iterator[str]:
        for (what, fix), places in self._places.items():
            many = f"{len(places)} of {self.total} {self.what_they_are}"
            yield f"{what} ({many}, the first at {places[0]}). {fix}"


def mistakes_of_items(
    name: str, config: Mapping[str, Any], spec: TaskSpec, splits: Splits, *, items: int
) -> Iterator[str]:
    """Yield what is wrong with the items that are asked, and with the worked examples.

    Args:
        name: of the task.
        config: of the task, as lm-eval has it.
        spec: what the suite asks.
        splits: the items of each split.
        items: how many of them are asked.
    """
    if callable(config.get("process_docs")) or config.get("process_docs"):
        return  # code makes other items of them; lm-eval builds their prompts
    asked = splits.get(str(config.get("test_split") or config.get("validation_split")), ())[:items]
    found = _Found(len(asked))
    task = _Task(config, asked)
    for item in asked:
        _look_at(task, item, found)
    _find_doubles(task, asked, found)
    yield from (f"task '{name}': {line}" for line in found.lines())
    yield from (f"task '{name}': {line}" for line in _of_chance(task, spec, asked))
    yield from (f"task '{name}': {line}" for line in _of_shots(config, spec, splits))


class _Task:
    """A task's templates, and what they make of an item."""

    def __init__(self, config: Mapping[str, Any], items: Sequence[Item]) -> None:
        self.config = config
        self.kind = str(config.get("output_type", "generate_until"))
        self.known = dict.fromkeys(key for item in items for key in item.fields)

    def is_function(self, key: str) -> bool:
        """Return whether code makes it; lm-eval's reader gives such a path as text."""
        value = self.config.get(key)
        return callable(value) or (isinstance(value, str) and value.startswith("/"))

    def value(self, key: str, item: Item) -> object:
        """Return what a template, or the name of a field, makes of an item.

        Raises:
            _FaultError: it cannot be made.
        """
        template = self.config[key]
        if not isinstance(template, str):
            return template
        if template in self.known:
            if template not in item.fields:
                raise self._lacks(key, template)
            return item.fields[template]
        if "{" not in template and not template[:1] == "[" and not template.isdigit():
            raise self._constant(key, template)
        return self._rendered(key, template, item)

    def choices(self, item: Item) -> list[str]:
        """Return what can be chosen.

        Raises:
            _FaultError: it is no list of texts.
        """
        made = self.value("doc_to_choice", item)
        if isinstance(made, dict):
            made = list(made.values())
        if isinstance(made, str):
            try:
                made = ast.literal_eval(made)
            except (SyntaxError, ValueError) as error:
                raise _no_list(made) from error
        if not isinstance(made, list):
            raise _no_list(made)
        return made

    def _rendered(self, key: str, template: str, item: Item) -> str:
        try:
            return templates().from_string(template).render(**item.fields)
        except jinja2.UndefinedError as error:
            said = str(error.message)
            name = said.split("'")[1] if said.count("'") > 1 else said
            if said.endswith("is undefined"):
                raise self._lacks(key, name) from error
            what = f"{key} asks for what is not there: {said}"
            raise _fault(what, "Mend the template, or the items.") from error
        except Exception as error:  # a template may raise anything
            what, found = f"{key} raises {type(error).__name__}", f": {str(error)[:100]}"
            raise _fault(what, "Mend the template, or the items.", found=found) from error

    def _lacks(self, key: str, name: str) -> _FaultError:
        near = difflib.get_close_matches(name, list(self.known), n=1, cutoff=0.5)
        hint = f"Did you mean '{near[0]}'? " if near else ""
        return _fault(
            f"{key} names the field '{name}', which items lack",
            f"{hint}They have {', '.join(map(str, self.known))}.",
        )

    def _constant(self, key: str, text: str) -> _FaultError:
        return _fault(
            f"{key} is '{text[:_SHOWN]}', which is no field and no template, the same for all",
            f"Name a field ({', '.join(map(str, self.known))}), or write '{{{{field}}}}'.",
        )


def _look_at(task: _Task, item: Item, found: _Found) -> None:
    """Note each fault of one item."""

    def attempt(check: Callable[[], object]) -> None:
        try:
            check()
        except _FaultError as fault:
            found.add(fault, item.where)

    has_prompt = task.config.get("doc_to_text") is not None and task.kind != _ROLLING
    if has_prompt and not task.is_function("doc_to_text"):
        attempt(lambda: _check_prompt(task, item))
    if task.config.get("doc_to_target") is not None and not task.is_function("doc_to_target"):
        check = _check_choice if task.kind == _CHOICE else _check_answer
        attempt(lambda: check(task, item))
    for key in ("description", "gen_prefix"):
        if task.config.get(key) and "{" in str(task.config[key]):
            attempt(partial(task.value, key, item))


def _check_prompt(task: _Task, item: Item) -> None:
    made = task.value("doc_to_text", item)
    if isinstance(made, int) and not isinstance(made, bool) and task.kind == _CHOICE:
        return  # each choice is a prompt of its own
    if not isinstance(made, str):
        fix = "Write '{{field}}', which gives a text, or mend the items."
        raise _fault(what="doc_to_text gives no text", fix=fix, found=_shown(made))
    if not made.strip() and not task.config.get("description"):
        raise _fault(what="the prompt is empty", fix="Mend doc_to_text, or the items.")


def _check_answer(task: _Task, item: Item) -> None:
    made = task.value("doc_to_target", item)
    if task.config.get("doc_to_choice") is not None:
        _check_choice(task, item)
        return
    answers = made if isinstance(made, list) else [made]
    if not answers or any(one is None or str(one).strip() in ("", "None") for one in answers):
        raise _fault(what="an item has no answer", fix="Give it one, or take the item out.")
    settings = task.config.get("generation_kwargs")
    stops = as_list(settings.get("until")) if isinstance(settings, Mapping) else []
    for stop in stops if task.kind == "generate_until" else ():
        if isinstance(stop, str) and stop and all(stop in str(one).strip() for one in answers):
            what = f"the answer holds {stop!r}, at which answers end (until)"
            raise _fault(what, "It can never be given: change until, or the answers.")


def _check_choice(task: _Task, item: Item) -> None:
    choices = None
    if not task.is_function("doc_to_choice") and task.config.get("doc_to_choice") is not None:
        choices = task.choices(item)
        _check_choices(choices)
    made = task.value("doc_to_target", item)
    if choices is None or isinstance(task.config.get("doc_to_text"), int):
        return
    template = task.config["doc_to_target"]
    is_field = isinstance(template, str) and template in task.known
    if not is_field and isinstance(made, str) and made.isdigit():
        made = int(made)  # as lm-eval has it; the text of a field stays a text
    for one in made if isinstance(made, list) else [made]:
        _check_index(one, choices)


def _check_choices(choices: list[str]) -> None:
    fix = "Mend doc_to_choice, or the items."
    if len(choices) < _LEAST_CHOICES:
        found = f": {len(choices)}"
        raise _fault(what="there are no two choices", fix=fix, found=found)
    if not all(isinstance(one, str) and one for one in choices):
        wrong = next(one for one in choices if not isinstance(one, str) or not one)
        raise _fault(what="a choice is no text", fix=fix, found=_shown(wrong))
    if len(set(choices)) < len(choices):
        raise _fault(what="two choices are the same", fix=fix)


def _check_index(right: object, choices: list[str]) -> None:
    if right is None or right == "":
        raise _fault(what="an item has no answer", fix="Give it one, or take the item out.")
    if isinstance(right, str):
        if right not in choices:
            fix = "Give the number of the choice from 0 on, or its text."
            raise _fault(what="the answer is none of the choices", fix=fix, found=_shown(right))
    elif not isinstance(right, int | float) or not 0 <= right < len(choices):
        found = f": choice {right!r:.{_SHOWN}} of {len(choices)}, from 0 on"
        fix = "Mend doc_to_target, or the items."
        raise _fault(what="the answer is beyond the choices", fix=fix, found=found)


def _find_doubles(task: _Task, items: Sequence[Item], found: _Found) -> None:
    seen: dict[str, tuple[str, str]] = {}
    for item in items:
        try:
            key = "doc_to_target" if task.kind == _ROLLING else "doc_to_text"
            if task.config.get(key) is None or task.is_function(key):
                return
            choices = task.choices(item) if task.kind == _CHOICE else []
            asked = repr((task.value(key, item), choices))
            answer = repr(task.value("doc_to_target", item))
        except (_FaultError, KeyError):
            continue
        if asked not in seen:
            seen[asked] = item.where, answer
        elif seen[asked][1] == answer:
            double = _fault("an item is there twice", "It counts once: take doubles out.")
            found.add(double, item.where)
        else:
            what = "a question is there twice, with two answers"
            found.add(_fault(what, "Only one can be right: mend or take out."), item.where)


def _of_chance(task: _Task, spec: TaskSpec, items: Sequence[Item]) -> Iterator[str]:
    """Yield that the suite takes guessing for worse than it is."""
    if task.kind != _CHOICE or task.is_function("doc_to_choice"):
        return
    try:
        numbers = [len(task.choices(item)) for item in items]
    except (_FaultError, KeyError):
        return
    if not numbers or not all(numbers):
        return
    chance = sum(1 / number for number in numbers) / len(numbers)
    if spec.chance < chance - _CHANCE_SLACK:
        yield (
            f"the suite says that guessing gets {spec.chance:g} (chance), and with its choices it "
            f"gets {chance:.4g}. Set chance to {chance:.4g}."
        )


def _of_shots(config: Mapping[str, Any], spec: TaskSpec, splits: Splits) -> Iterator[str]:
    """Yield what is wrong with the worked examples."""
    few = config.get("fewshot_config")
    few = few if isinstance(few, Mapping) else {}
    if not spec.num_fewshot or few.get("process_docs"):
        return
    split = few.get("split") or config.get("fewshot_split")
    if split is None and isinstance(few.get("samples"), list):
        examples = [
            Item(one, f"example {number}")
            for number, one in enumerate(few["samples"], start=1)
            if isinstance(one, dict)
        ]
    else:
        split = split or config.get("training_split") or config.get("validation_split")
        examples = list(splits.get(str(split), ()))
    needed = spec.num_fewshot + (split is not None and split == config.get("test_split"))
    if split in splits or examples:
        if len(examples) < needed:
            yield (
                f"has {len(examples)} worked examples, and each item takes {spec.num_fewshot} "
                f"others. Give at least {needed}, or lower num_fewshot."
            )
        own = {k: v for k, v in few.items() if k.startswith("doc_to_") and v is not None}
        found = _Found(len(examples), "worked examples")
        task = _Task({**config, **own, "description": ""}, examples)
        for example in examples:
            _look_at(task, example, found)
        yield from found.lines()
