"""What was typed: the one place where the options of runs are declared.

Each field is the option of its name, with its help; a second text is how it is spelled where that
is not the name. The command line (harness.cli.command) reads the declarations, harness.recipe
fills in a recipe from the values.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, get_args, get_type_hints


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What was typed; None where nothing was."""

    model: Annotated[str, "Hub id, folder, or 'canary'."]
    qformat: Annotated[str | None, "A format: a file in recipes/."] = None
    recipe: Annotated[Path | None, "A recipe file, instead of --qformat."] = None
    kv_cache: Annotated[
        str | None, "none, fp8_cast, fp8, nvfp4_cast or nvfp4.", "--kv-cache-qformat"
    ] = None
    calib_data: Annotated[str | None, "canary, default, FILE.jsonl or a data set."] = None
    calib_size: Annotated[int | None, "Samples at most."] = None
    calib_seq: Annotated[int | None, "Tokens of a sample at most."] = None
    layerwise: Annotated[
        bool | None, "Calibrate one decoder layer after the other.", "--layerwise/--whole"
    ] = None
    experts: Annotated[
        str | None, "Routed experts in calibration: grouped, or eager (one by one)."
    ] = None
    ranks: Annotated[int, "Processes that calibrate and quantize together, a GPU each."] = 1
    gpu_memory: Annotated[
        str | None, "Most that quantizing may take of each GPU, such as 24GiB."
    ] = None
    host_memory: Annotated[str | None, "The same of the host, for each process."] = None
    device: Annotated[str, "auto, cpu or cuda."] = "auto"
    revision: Annotated[str | None, "Of a Hub model."] = None
    suite: Annotated[str | None, "A suite: a file in evals/suites/, or a path."] = None
    tasks: Annotated[tuple[Path, ...], "Folder of own lm-eval tasks; repeatable."] = ()
    task_code: Annotated[bool, "Run the Python that own tasks name (!function)."] = False
    nel: Annotated[Path | None, "Environment that holds NeMo Evaluator, or its python."] = None
    margin: Annotated[float | None, "Allowed loss of each task, fraction of 1."] = None
    engine: Annotated[str | None, "auto, reference, vllm, docker, sglang or trtllm."] = None
    numerics: Annotated[str | None, "deployed or declared."] = None
    engine_args: Annotated[
        tuple[str, ...], "KEY=VALUE for the server of both arms; repeatable.", "--engine-arg"
    ] = ()
    tensor_parallel_size: Annotated[int, "GPUs of one server."] = 1
    vllm: Annotated[Path | None, "Environment that holds vLLM, or its python."] = None
    sglang: Annotated[Path | None, "Environment that holds SGLang, or its python."] = None
    trtllm: Annotated[Path | None, "Environment that holds TensorRT-LLM, or its python."] = None
    image: Annotated[str | None, "Image of the docker engine: digest, id or name."] = None
    baseline: Annotated[str | None, "Instead of MODEL: another model, a run, or a bundle file."] = (
        None
    )
    waivers: Annotated[Path | None, "Reviewed file of failed checks that are accepted."] = None
    missing_evidence: Annotated[
        str | None,
        "Where the engine does not show what it loaded or computes: inconclusive, or go.",
    ] = None
    budget: Annotated[
        str | None, "Time for asking both arms, such as 60m: as much of the suite as fits."
    ] = None
    end_early: Annotated[
        bool, "Ask the candidate no more once a critical task is known not to be GO."
    ] = False
    skip_verify: Annotated[bool, "Do not check the files; the run cannot end GO."] = False
    offline: Annotated[
        Path | None, "Folder that `harness prefetch` filled: no network is asked for anything."
    ] = None


SERVING = (
    *("engine", "numerics", "engine_args", "tensor_parallel_size"),
    *("vllm", "sglang", "trtllm", "image"),
)
"""Options of a command that serves."""
ASKING = ("suite", "tasks", "task_code", "nel")
"""Options of a command that asks a suite."""
JUDGING = (
    *ASKING,
    "margin",
    *SERVING,
    "waivers",
    "missing_evidence",
    "budget",
    "end_early",
    "skip_verify",
)
"""Options of a command that judges."""
MAKING = (
    *("model", "qformat", "recipe", "kv_cache", "calib_data", "calib_size", "calib_seq"),
    *("layerwise", "experts", "ranks", "gpu_memory", "host_memory", "device", "revision"),
)
"""Options of a command that makes a checkpoint."""


def option_of(name: str) -> str:
    """Return how a field is spelled; `--layerwise/--whole` where no has a spelling of its own."""
    _, _, *spelled = get_args(get_type_hints(Request, include_extras=True)[name])
    return str(spelled[0]) if spelled else f"--{name.replace('_', '-')}"


def as_typed(request: Request, names: Iterable[str]) -> tuple[str, ...]:
    """Return the options that say what a request says, of those fields that are not as they were.

    Each is one word, `--option=value`, so that no value is taken for an option.
    """
    defaults = {field.name: field.default for field in fields(Request)}
    words: list[str] = []
    for name in names:
        value, option = getattr(request, name), option_of(name)
        if value == defaults[name]:
            continue
        yes, _, no = option.partition("/")
        if isinstance(value, bool):
            words.append(yes if value else no)
        else:
            several = value if isinstance(value, tuple) else (value,)
            words += [f"{yes}={one}" for one in several]
    return tuple(words)
