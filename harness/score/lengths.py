"""How long prompts and answers are in a model's tokens, before any of them is asked.

A prompt that does not fit loses its beginning, and with it often what was asked for; the gate
ends such a run INCONCLUSIVE after hours. An answer that is longer than its budget is never right.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from harness.artifacts import Suite, TaskSpec
from harness.errors import SuiteError
from harness.models import load_tokenizer
from harness.score.asking import Prompts, limits_of
from harness.score.prepare import prompts_of
from harness.score.sources import Catalog
from harness.tasks import as_list

_KEEPING = frozenset({"remove_whitespace", "take_first", "lowercase", "uppercase", "none"})
"""Filters behind which the whole answer still has to be what is expected."""


class Lengths(NamedTuple):
    """Tokens of one task's requests."""

    task: str
    num_requests: int
    longest: int
    """Prompt, and the budget or the text of the answer, of the longest request."""
    num_cut: int
    """Prompts that do not fit into the suite's max_model_len."""
    num_unsayable: int
    """Expected answers that are longer than the budget."""
    budget: int
    """Of an answer, thoughts included; 0 where it is chosen."""
    thinking: int = 0
    """Of the budget, what the thoughts may take."""


def lengths_of(suite: Suite, folder: Path) -> tuple[Lengths, ...]:
    """Return how long the requests of the tasks are whose items lie here.

    Args:
        suite: what is asked; nothing is wrong with its tasks.
        folder: of the model, for its tokenizer and its chat template.

    Raises:
        ModelError: the tokenizer cannot be loaded, or the chat template fails.
        SuiteError: prompts cannot be built.
    """
    catalog = Catalog(suite.tasks_from)
    prompts = Prompts(load_tokenizer(folder), suite, max_length=suite.max_model_len)
    return tuple(
        _of_task(catalog, suite, spec, prompts)
        for spec in suite.of_lm_eval
        if all(catalog.is_local(leaf) for leaf in catalog.leaves(spec.asked))
    )


def cut_or_unsayable(suite: Suite, folder: Path) -> tuple[SuiteError, ...]:
    """Return what does not fit, a mistake a task.

    Raises:
        ModelError: as lengths_of.
        SuiteError: as lengths_of.
    """
    found = [line for one in lengths_of(suite, folder) for line in _lines(one, suite)]
    return tuple(map(SuiteError, found))


def _lines(lengths: Lengths, suite: Suite) -> Iterator[str]:
    if lengths.num_cut:
        yield (
            f"task '{lengths.task}': {lengths.num_cut} of {lengths.num_requests} prompts do not "
            f"fit into the suite's max_model_len of {suite.max_model_len} tokens{_taken(lengths)}, "
            f"and would be cut. Set max_model_len to at least {lengths.longest}."
        )
    if lengths.num_unsayable:
        yield (
            f"task '{lengths.task}': {lengths.num_unsayable} of {lengths.num_requests} expected "
            f"answers are longer than its max_gen_toks ({lengths.budget - lengths.thinking}), "
            "so that no model can give them. Raise max_gen_toks in its generation_kwargs."
        )


def _taken(lengths: Lengths) -> str:
    """Say what the thoughts and the answer may take."""
    if not lengths.budget:
        return ""
    answer = f"the answer may take {lengths.budget - lengths.thinking}"
    thoughts = f"the thoughts may take {lengths.thinking} and " if lengths.thinking else ""
    return f" of which {thoughts}{answer}"


def _of_task(catalog: Catalog, suite: Suite, spec: TaskSpec, prompts: Prompts) -> Lengths:
    needed: list[int] = []
    num_unsayable, budget = 0, 0
    for task in prompts_of(catalog, suite, spec, prompts.render).values():
        for request in task.instances:
            if request.request_type == "loglikelihood_rolling":
                needed.append(0)  # it is read in pieces that fit
                continue
            if request.request_type != "generate_until":
                needed.append(len(prompts.encode("".join(map(str, request.args)))) + 1)
                continue
            limits = limits_of(request.args[1], suite, prompts.end)
            budget = max(budget, limits.max_new_tokens)
            needed.append(len(prompts.encode(request.args[0])) + limits.max_new_tokens)
            answers = _answers(task, request.doc)
            too_long = [
                len(prompts.encode(answer, add_special_tokens=False)) > limits.answer_budget
                for answer in answers
            ]
            num_unsayable += bool(too_long) and all(too_long)
    return Lengths(
        task=spec.name,
        num_requests=len(needed),
        longest=max(needed, default=0),
        num_cut=sum(one > suite.max_model_len for one in needed),
        num_unsayable=num_unsayable,
        budget=budget,
        thinking=suite.thinking_budget_of(spec) if budget else 0,
    )


def _answers(task: Any, document: Mapping[str, Any]) -> list[str]:  # noqa: ANN401 -- lm-eval has no types
    """Return what the whole answer may be; nothing where a filter takes a part of it."""
    filters = task.get_config("filter_list") or []
    steps = {step["function"] for one in filters for step in one["filter"]}
    metrics = {one["metric"] for one in task.get_config("metric_list") or []}
    if not steps <= _KEEPING or metrics != {"exact_match"} or task.get_config("doc_to_choice"):
        return []
    return [str(answer).strip() for answer in as_list(task.doc_to_target(document))]
