"""Whether a suite can be scored with its tasks: what they are, and what they ask for.

Nothing here touches the network or loads a data set; where tasks come from is in `sources`.
"""

from collections.abc import Mapping
from typing import Any

from lm_eval.models.utils import normalize_gen_kwargs

from harness.artifacts import DEFAULT_BUDGET, Suite, TaskSpec
from harness.errors import SuiteError
from harness.score.local_data import read_local_splits
from harness.score.metrics import check_metric, scale_of, unknown
from harness.score.shares import check_weights, sizes_of
from harness.score.sources import Catalog

_GENERATED = "generate_until"
_ROLLING = "loglikelihood_rolling"
_OUTPUT_TYPES = (_GENERATED, "multiple_choice", "loglikelihood", _ROLLING)
_GREEDY_ARGUMENTS = {"until", "do_sample", "temperature", "max_gen_toks"}
_DRAWN_ARGUMENTS = {"top_p", "top_k", "min_p"}
"""What the suite replaces where its answers are drawn."""


def check_suite(suite: Suite) -> None:
    """Refuse a suite with a task that does not exist or cannot be scored item by item.

    Raises:
        SuiteError: the first task that is wrong, and what it could have been.
    """
    check_thinking(suite)
    catalog = Catalog(suite.tasks_from)
    for spec in suite.of_lm_eval:
        check_members(catalog, spec)
        check_shares(catalog, spec)
        for leaf in catalog.leaves(spec.asked):
            config = catalog.config(leaf)
            check_asked(spec, config, suite)
            if catalog.is_local(leaf):  # what is wrong with its items
                read_local_splits(catalog.entry(leaf).yaml_path.parent, config)


def check_members(catalog: Catalog, spec: TaskSpec) -> None:
    """Refuse what is no task, and a group whose members are scored in different units.

    Raises:
        SuiteError: with the nearest names, or the members that differ.
    """
    leaves = catalog.leaves(spec.asked)
    if not leaves:
        raise SuiteError(unknown("task", spec.asked, catalog.names()))
    scales = {leaf: scale_of(spec.metric, catalog.config(leaf)) for leaf in leaves}
    if len({scale for scale in scales.values() if scale}) > 1:
        units = ", ".join(f"'{leaf}' by {scale}" for leaf, scale in scales.items() if scale)
        message = (
            f"task '{spec.name}' is a group whose members have metric '{spec.metric}' in different "
            f"units ({units}), so it has no score. List the members one by one."
        )
        raise SuiteError(message)


def check_shares(catalog: Catalog, spec: TaskSpec) -> None:
    """Refuse a number of items that a task has not, or that a group cannot share out.

    Raises:
        SuiteError: with a number that can be had.
    """
    leaves, sizes = catalog.leaves(spec.asked), sizes_of(catalog, spec.asked)
    if sizes is not None:
        check_weights(spec, catalog.config(spec.asked), sizes)
    elif spec.items % len(leaves):
        message = (
            f"task '{spec.name}' is a group of {len(leaves)} tasks, which get the same number "
            f"of items each. Make its items a multiple of {len(leaves)}, not {spec.items}."
        )
        raise SuiteError(message)


def check_asked(spec: TaskSpec, config: Mapping[str, Any], suite: Suite) -> None:
    """Refuse a task that is not what the suite takes it for, or cannot be compared by item.

    Raises:
        SuiteError: the first reason.
    """
    _check_task(spec, config)
    _check_generation(spec, config, suite)


def answer_budgets(suite: Suite) -> Mapping[str, int]:
    """Return the most tokens of an answer with its thoughts, by task; 0 where it is a choice."""
    catalog = Catalog(suite.tasks_from)

    def budget(task: str, thinking: int) -> int:
        config = catalog.entry(task).cfg or {}
        if config.get("output_type", _GENERATED) != _GENERATED:
            return 0
        return int(_settings(config)["max_gen_toks"]) + thinking

    def budget_of(spec: TaskSpec) -> int:
        thinking = suite.thinking_budget_of(spec)
        return max((budget(leaf, thinking) for leaf in catalog.leaves(spec.asked)), default=0)

    return {spec.name: budget_of(spec) for spec in suite.tasks}


def check_protocol(suite: Suite, protocol: str) -> None:
    """Refuse a suite that a server which only has chats cannot answer.

    Raises:
        SuiteError: with what is missing.
    """
    if protocol != "chat":
        return
    if not suite.apply_chat_template:
        message = (
            f"suite '{suite.name}' has prompts that are no chats, and the server only has chats. "
            "Set the suite's apply_chat_template, or type the address up to /v1."
        )
        raise SuiteError(message)
    chosen = tasks_of_likelihoods(suite)
    if chosen:
        message = (
            f"task '{chosen[0]}' needs log-likelihoods of given texts, and a chat gives none. "
            "Type the address up to /v1 of a server that has completions."
        )
        raise SuiteError(message)


def tasks_of_likelihoods(suite: Suite) -> tuple[str, ...]:
    """Return the tasks that are scored by log-likelihoods of given texts: nothing is generated."""
    catalog = Catalog(suite.tasks_from)

    def kinds(task: str) -> set[object]:
        leaves = catalog.leaves(task)
        return {(catalog.entry(leaf).cfg or {}).get("output_type", _GENERATED) for leaf in leaves}

    return tuple(spec.name for spec in suite.of_lm_eval if kinds(spec.asked) - {_GENERATED})


def check_thinking(suite: Suite) -> None:
    """Refuse thinking that is turned on or off by half.

    Raises:
        SuiteError: with what is missing.
    """
    budgets = {task.name: suite.thinking_budget_of(task) for task in suite.tasks}
    complete = suite.think_end_token and all(budgets.values()) and suite.apply_chat_template
    if suite.thinking and not complete:
        message = (
            f"suite '{suite.name}' has thinking on. It also needs think_end_token (such as "
            "</think>), a thinking_budget in tokens (its own, or one of each task), and "
            "apply_chat_template."
        )
        raise SuiteError(message)
    if any(budgets.values()) and not suite.thinking:
        of_task = "" if suite.thinking_budget else " of a task"
        message = (
            f"suite '{suite.name}' has a thinking_budget{of_task} but thinking is off. Set one of "
            "them."
        )
        raise SuiteError(message)


def _check_task(spec: TaskSpec, config: Mapping[str, Any]) -> None:
    kind = config.get("output_type", "generate_until")
    if kind not in _OUTPUT_TYPES:
        message = (
            f"task '{spec.name}' has output_type '{kind}', which lm-eval does not know. "
            f"Use one of {', '.join(_OUTPUT_TYPES)}."
        )
        raise SuiteError(message)
    if config.get("unsafe_code"):
        message = f"task '{spec.name}' runs code that the model wrote. Use a task that does not."
        raise SuiteError(message)
    check_metric(spec, config)
    filters = [f["name"] for f in config.get("filter_list") or [{"name": "none"}]]
    if spec.filter not in filters:
        raise SuiteError(unknown(f"filter of task '{spec.name}'", spec.filter, filters))
    if (config.get("num_fewshot") == 0 or kind == _ROLLING) and spec.num_fewshot:
        message = (
            f"task '{spec.name}' is made for 0 worked examples, the suite asks for "
            f"{spec.num_fewshot}. Set num_fewshot to 0."
        )
        raise SuiteError(message)


def _check_generation(spec: TaskSpec, config: Mapping[str, Any], suite: Suite) -> None:
    if config.get("output_type", _GENERATED) != _GENERATED:
        if spec.is_drawn:
            message = (
                f"task '{spec.name}' is multiple choice, of which nothing is drawn. Take out its "
                "temperature and repeats."
            )
            raise SuiteError(message)
        if suite.thinking:
            message = (
                f"task '{spec.name}' reads given texts, so there is nothing that a model could "
                "think before. Use a task with generated answers, or thinking: false."
            )
            raise SuiteError(message)
        return
    settings = _settings(config)
    _check_drawing(spec, config, settings)
    answer, thinking = settings["max_gen_toks"], suite.thinking_budget_of(spec)
    if answer + thinking >= suite.max_model_len:
        may = f"think for {thinking} tokens and answer with {answer}" if thinking else ""
        message = (
            f"task '{spec.name}' may {may or f'answer with {answer} tokens'}, which leaves no room "
            f"for a prompt. Make the suite's max_model_len {suite.max_model_len} larger."
        )
        raise SuiteError(message)


def _check_drawing(spec: TaskSpec, config: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse arguments that change answers and that the suite does not pin."""
    known = _GREEDY_ARGUMENTS | (_DRAWN_ARGUMENTS if spec.is_drawn else set())
    unknown = sorted(set(settings) - known)
    if unknown:
        message = (
            f"task '{spec.name}' asks for generation argument '{unknown[0]}', which a suite cannot "
            "pin. Use a task without it."
        )
        if unknown[0] in _DRAWN_ARGUMENTS:
            message = _must_be_drawn(spec, f"generation argument '{unknown[0]}'")
        raise SuiteError(message)
    if not spec.is_drawn and (settings["do_sample"] or config.get("repeats", 1) != 1):
        raise SuiteError(_must_be_drawn(spec, "sampled answers"))


def _must_be_drawn(spec: TaskSpec, what: str) -> str:
    return (
        f"task '{spec.name}' asks for {what}, and the suite's answers to it are greedy. Give the "
        "task a temperature in the suite (with repeats, item_sd and repeat_sd), or use another."
    )


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return lm-eval's generation arguments of a task, with its defaults."""
    arguments = dict(config.get("generation_kwargs") or {})
    settings: dict[str, Any] = normalize_gen_kwargs(arguments, DEFAULT_BUDGET)
    return settings
