"""How long asking a suite takes, on each kind of engine, before anything is tried on the spot."""

from collections.abc import Mapping
from typing import NamedTuple

from harness import score
from harness.artifacts import EngineSpec, Inventory, Suite, TaskSpec
from harness.baselines import RERUN_SHARE
from harness.models import Source
from harness.stopwatch import TimeRange, exactly


class Speed(NamedTuple):
    """Layers times tokens a second, of many requests at once."""

    prompt: float
    answer: float


DEPLOYED = Speed(prompt=9.3e5, answer=6.3e4)
EAGER = Speed(prompt=9.0e5, answer=2.3e4)
"""Where `enforce-eager` leaves out CUDA graphs."""
EMULATED = Speed(prompt=1.1e6, answer=2.3e4)
"""Measured without CUDA graphs: with them it is this or faster."""
AT_ONCE = 64
"""Requests that the rates were measured with; one by itself waits as long for a token."""
_REQUESTS = 350.0
"""Requests a second that vLLM takes over HTTP, however small the model."""
START_S = 60.0
"""From nothing to the first answer, once kernels are compiled; 100 s more the first time."""
TENSOR_S = 3.6e-4
"""Of loading a tensor: an expert's weights are four of them for each projection."""
TENSORS = 4
_CHOICES = 4
"""Requests that an item asks whose answer is chosen."""
_PROMPT_TOKENS = 100
"""Of a question, and of each worked example before it."""
_USED = 0.5
"""Share of its budget that an answer uses."""

CPU_START_S = 75.0
CPU_ITEMS = 12.0
"""Items of the canary's size answered a second on two cores."""
CPU_TOKENS = 20.0
"""Tokens a second of one answer by itself, there."""
RUNS = 1 + RERUN_SHARE
"""Of the baseline: once, and a share of its items again."""


class Rates(NamedTuple):
    """What an engine in this process takes."""

    flop: TimeRange
    """Of a multiply-add of the model's forward, over two."""
    start_s: float
    """Of loading a model, besides reading it."""
    step_s: float
    """Of one linear layer for one batch in the emulating engine."""


CPU = Rates(exactly(1 / 5e10), start_s=2.0, step_s=4e-4)
CUDA = Rates(exactly(1 / 2e14), start_s=5.0, step_s=5e-4)
UNQUANTIZED = 0.7
"""Share of the emulating arm's time that the unquantized arm takes."""
_TOKENS_PER_ITEM = 48
"""Prompt and answer of one item together, as forward passes see them."""
_STEPS_PER_BATCH = 12
"""Forward passes that one batch of items needs."""


class Asked(NamedTuple):
    """A suite, and the engine and a model that are asked."""

    engine: EngineSpec
    suite: Suite
    source: Source
    inventory: Inventory


def asking_seconds(asked: Asked) -> float:
    """Return about how long both arms take to start and to be asked, the baseline in part twice."""
    if asked.engine.name != "reference":
        return serving_seconds(asked.engine, asked.suite, asked.source)
    rates = CUDA if asked.engine.device.startswith("cuda") else CPU
    return 2 * rates.start_s + (1 + RUNS * UNQUANTIZED) * arm_seconds(asked, rates)


def arm_seconds(asked: Asked, rates: Rates) -> float:
    """Return how long the emulating engine in this process answers."""
    flops_per_token = 2 * _active_weights(asked)
    num_calls = len({(one.parameter.tensor, one.expert) for one in asked.inventory.linears})
    answers = num_answers(asked.suite)
    calls = answers / asked.suite.batch_size * _STEPS_PER_BATCH * num_calls
    computing = answers * _TOKENS_PER_ITEM * flops_per_token * rates.flop.low_s
    return computing + calls * rates.step_s


def _active_weights(asked: Asked) -> float:
    """Return how many weights one token meets: all dense ones, and those of its experts."""
    share = expert_share(asked.source, asked.inventory)
    return sum(
        one.shape[0] * one.shape[1] * (share if one.is_routed else 1.0)
        for one in asked.inventory.linears
    )


def expert_share(source: Source, inventory: Inventory) -> float:
    """Return the share of a layer's experts that one token meets."""
    config = source.config
    text = config.get("text_config", config)
    values = text if isinstance(text, Mapping) else {}
    num_experts = max((one.expert or 0 for one in inventory.linears), default=0) + 1
    top_k = values.get("num_experts_per_tok")
    return top_k / num_experts if isinstance(top_k, int) and num_experts > 1 else 1.0


def speed_of(engine: EngineSpec, *, emulated: bool = False) -> Speed:
    """Return how fast a server on a GPU is."""
    if emulated:
        return EMULATED
    given = {argument.removeprefix("--").replace("_", "-") for argument in engine.arguments}
    return EAGER if "enforce-eager=true" in given else DEPLOYED


class Requests(NamedTuple):
    """What a suite asks of a server."""

    requests: int
    prompt_tokens: float
    answer_tokens: float


def num_answers(suite: Suite) -> int:
    """Return how many answers a suite asks for; metrics of one task share theirs."""
    tasks = {task.asked: task for task in suite.tasks}.values()
    return sum(_answers(task) for task in tasks)


def _answers(task: TaskSpec) -> int:
    return task.items * task.repeats


def serving_seconds(engine: EngineSpec, suite: Suite, source: Source) -> float:
    """Return about how long both arms' servers take to start and to be asked a suite."""
    if not engine.device.startswith("cuda"):
        return 2 * CPU_START_S + (1 + RUNS) * num_answers(suite) / CPU_ITEMS
    asked = requests_of(suite)
    candidate = answering(source, asked, speed_of(engine, emulated=engine.numerics == "declared"))
    return 2 * START_S + candidate + RUNS * answering(source, asked, speed_of(engine))


def requests_of(suite: Suite) -> Requests:
    """Return what a server is asked for a suite."""
    budgets = score.answer_budgets(suite)
    tasks = {task.asked: task for task in suite.tasks}.values()  # once for all its metrics
    return Requests(
        sum(_answers(task) * (1 if budgets[task.name] else _CHOICES) for task in tasks),
        sum(_answers(task) * _PROMPT_TOKENS * (1 + task.num_fewshot) for task in tasks),
        sum(_answers(task) * _USED * budgets[task.name] for task in tasks),
    )


def answering(source: Source, asked: Requests, speed: Speed) -> float:
    """Return the seconds in which a server on a GPU answers."""
    tokens = asked.prompt_tokens / speed.prompt + asked.answer_tokens / speed.answer
    return max(asked.requests / _REQUESTS, num_layers(source) * tokens)


def num_layers(source: Source) -> int:
    """Return the layers of a model; 1 where its configuration does not say."""
    config = source.config
    text = config.get("text_config", config)
    value = text.get("num_hidden_layers") if isinstance(text, Mapping) else None
    return value if isinstance(value, int) else 1
