"""The child process in which NeMo Evaluator tells of its tasks, or asks them of a server.

Run as a script by a Python that has NeMo Evaluator (0.3 on), which need not be ours. The order is a
JSON file; so is what comes back, for NeMo Evaluator prints as it likes. `tell` loads each task,
makes all its prompts and scores its first item once; `ask` runs NeMo Evaluator's own evaluation.
"""

import asyncio
import hashlib
import json
import os
import resource
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

KEY_VARIABLE = "HARNESS_NEL_KEY"
_SCHEMES = ("lm-eval",)
"""Of tasks that are no names of NeMo Evaluator's: the others need containers or servers."""
_KEPT = ("extra_body", "request_timeout", "max_retries", "max_concurrent_upstream")
"""Settings of a service's proxy that are kept."""
_PATHS = {"chat_completions": "/chat/completions", "completions": ""}
"""What NeMo Evaluator wants behind an address, by protocol."""
_CONTAINERS = ("docker", "podman", "apptainer", "enroot", "srun")
_LONGEST = 400


class Mistake(Exception):  # noqa: N818 -- what is wrong with a configuration, in words
    """Something that the user can mend."""


def main() -> None:
    """Do what an order says."""
    order = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_bytes"], order["file_bytes"]))
    found = ask(order) if "url" in order else tell(order)
    Path(order["result"]).write_text(json.dumps(found), encoding="utf-8")


def ask(order: dict[str, Any]) -> dict[str, Any]:
    """Run NeMo Evaluator's evaluation of the tasks; what failed is told."""
    from nemo_evaluator.orchestration.orchestrator import run_local  # noqa: PLC0415 -- not ours

    config, names = _configuration(order)
    config.output.dir = order["folder"]
    bundles = run_local(config)  # one of each benchmark, in their order
    failed = {
        name: _short(bundle.get("_error"))
        for name, bundle in zip(names, bundles, strict=False)
        if bundle.get("_failed")
    }
    return {"failed": failed}


def tell(order: dict[str, Any]) -> dict[str, Any]:
    """Return the version, each task's digest, and everything that is wrong."""
    try:
        installed = version("nemo-evaluator")
    except PackageNotFoundError:
        return {"version": None}
    numbers = [int(part) for part in installed.split(".")[:2] if part.isdecimal()]
    if numbers < order["least"]:
        return {"version": installed, "tasks": {}, "mistakes": []}
    told: dict[str, Any] = {"version": installed, "tasks": {}, "mistakes": []}
    if find_spec("scipy") is None:  # its intervals of repeats and categories fail at the very end
        return {**told, "lacks": "scipy"}
    try:
        config, names = _configuration(order)
    except Mistake as mistake:
        return {**told, "mistakes": str(mistake).splitlines()}
    for name, bench in zip(names, config.benchmarks, strict=True):
        try:
            told["tasks"][name] = _task(bench, order["tasks"][name], config)
        except Mistake as mistake:
            told["mistakes"].append(f"task '{name}': {mistake}")
        except Exception as error:  # noqa: BLE001 -- a task is anybody's code
            said = _short(f"{type(error).__name__}: {error}")
            told["mistakes"].append(f"task '{name}' cannot be loaded: {said}")
    return told


def _configuration(order: dict[str, Any]) -> tuple[Any, list[str]]:
    """Return NeMo Evaluator's configuration of the tasks, and what the suite calls each.

    The model's service is the one that the order names; nothing else is started.

    Raises:
        Mistake: it asks for what is not there, or for what would not be paired.
    """
    from nemo_evaluator.config import parse_eval_config  # noqa: PLC0415 -- not ours
    from nemo_evaluator.config.compose import compose_config  # noqa: PLC0415 -- not ours

    try:
        raw = compose_config(order["config"])
        config = parse_eval_config(raw)
    except Exception as error:
        message = f"'{order['config']}' is refused by NeMo Evaluator: {_short(error)}"
        raise Mistake(message) from error
    if config.cluster.type != "local":
        message = f"cluster '{config.cluster.type}': harness runs it on this machine. Take it out."
        raise Mistake(message)
    wanted = order["tasks"]
    named = [(_name(bench, order), bench) for bench in config.benchmarks]
    names = [name for name, _ in named]
    lines = [
        f"'{order['config']}' has {names.count(name)} benchmarks '{name}', of {', '.join(names)}."
        for name in wanted
        if names.count(name) != 1
    ]
    chosen = [(name, bench) for name, bench in named if name in wanted]
    for name, bench in chosen:
        said = [*_refused(bench, config), *_otherwise(bench, wanted[name], config)]
        lines += [f"task '{name}': {line}" for line in said]
    if lines:
        raise Mistake("\n".join(lines))
    services = {}
    for number, (name, bench) in enumerate(chosen):
        service = config.services[bench.solver.service]
        _pin(bench, wanted[name], service)
        # Each its own: what a service says of generation overrides what its solvers say.
        bench.solver.service = f"model_{number}"
        services[bench.solver.service] = _service(service, bench, order)
    config.benchmarks = [bench for _, bench in chosen]
    config.services = services
    config.output.export = []
    return config, [name for name, _ in chosen]


def _name(bench: Any, order: dict[str, Any]) -> str:  # noqa: ANN401 -- NeMo Evaluator's
    """Return what a suite calls a benchmark: its bundle's name. Its file is named from here.

    Raises:
        Mistake: it is code that may not run.
    """
    is_uri = "://" in bench.name
    is_code = ".py" in bench.name if not is_uri else bench.name.endswith((".yaml", ".yml"))
    if is_code and not order["task_code"]:
        _, is_named, named = bench.name.rpartition(".py:")
        if is_named and named not in order["tasks"]:
            return str(named)
        message = f"the benchmark '{bench.name}' is code, which would run here. Read it, and type"
        raise Mistake(message + " --task-code.")
    if is_uri or not is_code:
        return str(bench.name).rsplit("/", 1)[-1]
    file, _, named = bench.name.rpartition(".py")
    path, named = Path(f"{file}.py").resolve(), named.removeprefix(":")
    named = named or _name_in(str(path))  # it tells its names once alone
    bench.name = f"{path}:{named}"
    return named


def _name_in(file: str) -> str:
    from nemo_evaluator.environments.registry import get_environment  # noqa: PLC0415 -- not ours

    try:
        return str(get_environment(file).name)
    except Exception as error:
        message = f"'{file}' cannot be loaded: {_short(f'{type(error).__name__}: {error}')}"
        raise Mistake(message) from error


def _refused(bench: Any, config: Any) -> list[str]:  # noqa: ANN401 -- NeMo Evaluator's
    """Return what of a benchmark harness cannot do."""
    solver, scheme = bench.solver, bench.name.partition("://")[0]
    service = config.services.get(getattr(solver, "service", None) or "")
    others = sorted({m.type for m in bench.scoring.metrics} - {"scorer"})
    proxy = getattr(service, "proxy", None)
    problems = {
        f"'{scheme}://' needs containers or servers of its own": (
            "://" in bench.name and scheme not in _SCHEMES
        ),
        f"solver '{solver.type}' is not supported, only 'simple'": solver.type != "simple",
        f"sandbox '{bench.sandbox.type}' needs containers": bench.sandbox.type != "none",
        f"verifier '{bench.verifier}' is a server of its own": bench.verifier,
        f"metrics of type {', '.join(others)} need another model or a container": others,
        "skip_failed leaves out answers, which could not be paired": bench.skip_failed,
        "its service has interceptors or extra_headers, which may answer in the model's place": (
            proxy is not None and (proxy.interceptors or proxy.extra_headers)
        ),
    }
    advice = "Run it with NeMo Evaluator itself, and type `harness judge` on its bundles"
    return [f"{what}. {advice}." for what, is_so in problems.items() if is_so]


def _otherwise(bench: Any, asked: dict[str, Any], config: Any) -> list[str]:  # noqa: ANN401 -- NeMo Evaluator's
    """Return what the configuration says otherwise than the suite, or not at all."""
    service = config.services.get(getattr(bench.solver, "service", None) or "")
    if service is None or not hasattr(service, "generation"):
        return []
    generation = _generation(bench, service)
    both = {what: (getattr(generation, what), wanted) for what, wanted in _drawn(asked).items()}
    both["num_fewshot"] = (bench.fewshot, asked["num_fewshot"])
    lines = [
        f"{what} is {said} there and {wanted} in the suite. Say the same in both."
        for what, (said, wanted) in both.items()
        if said not in (None, wanted)
    ]
    metrics = ["reward", *(f"scorer:{metric.name}" for metric in bench.scoring.metrics)]
    lines += [
        f"it has no metric '{metric}', only {', '.join(metrics)}."
        for metric in asked["metrics"]
        if metric not in metrics
    ]
    if generation.max_tokens is None:
        lines.append("nothing bounds its answers. Give max_tokens under its service's generation.")
    if generation.seed is not None and asked["repeats"] > 1:
        lines.append("with one seed all repeats are alike. Take it out of the generation.")
    if service.protocol not in _PATHS:
        known = " or ".join(_PATHS)
        lines.append(f"protocol '{service.protocol}' is not supported. Take {known}.")
    return lines


def _generation(bench: Any, service: Any) -> Any:  # noqa: ANN401 -- NeMo Evaluator's
    own = bench.solver.generation
    return service.generation if own is None else own.merge_onto(service.generation)


def _drawn(asked: dict[str, Any]) -> dict[str, Any]:
    """Return how answers are drawn."""
    greedy = {"temperature": asked["temperature"]}
    return greedy | {"top_p": asked["top_p"]} if asked["temperature"] else greedy


def _pin(bench: Any, asked: dict[str, Any], service: Any) -> None:  # noqa: ANN401 -- NeMo Evaluator's
    """Put into a benchmark what the suite says of it, and its whole generation in one place."""
    bench.solver.generation = _generation(bench, service).model_copy(update=_drawn(asked))
    bench.repeats, bench.max_problems = asked["repeats"], asked["items"]


def _service(service: Any, bench: Any, order: dict[str, Any]) -> Any:  # noqa: ANN401 -- NeMo Evaluator's
    from nemo_evaluator.config import ExternalApiService  # noqa: PLC0415 -- not ours

    proxy = getattr(service, "proxy", None)
    kept = proxy.model_dump(include=set(_KEPT)) if proxy is not None else None
    return ExternalApiService(
        url=f"{order.get('url', 'http://127.0.0.1:9/v1')}{_PATHS[service.protocol]}",
        protocol=service.protocol,
        model=order.get("model", "not served yet"),
        api_key=os.environ.get(KEY_VARIABLE),
        generation=bench.solver.generation,
        proxy=kept,
    )


def _task(bench: Any, asked: dict[str, Any], config: Any) -> dict[str, Any]:  # noqa: ANN401 -- NeMo Evaluator's
    """Return what decides a task's answers, after a trial of its items and its scorer.

    Raises:
        Mistake: it has too few items, one that cannot be made, or a scorer that needs more.
    """
    from nemo_evaluator.environments.registry import get_environment  # noqa: PLC0415 -- not ours

    environment = get_environment(
        bench.name,
        num_examples=None if bench.shuffle_seed is not None else bench.max_problems,
        num_fewshot=bench.fewshot,
        params=bench.params,
    )
    called = str(environment.name).rsplit("/", 1)[-1]
    if called != asked["name"]:
        message = f"NeMo Evaluator calls it '{called}'. Call it so in the suite."
        raise Mistake(message)
    service = config.services[bench.solver.service]
    how = bench.model_dump(mode="json", exclude={"solver", "max_concurrent", "timeout"})
    how["name"] = environment.name
    code = Path(bench.name.rpartition(".py")[0] + ".py")
    how["code"] = hashlib.sha256(code.read_bytes()).hexdigest() if code.is_file() else ""
    how["system_prompt"] = bench.solver.system_prompt
    how["generation"] = bench.solver.generation.model_dump(mode="json", exclude_none=True)
    how["protocol"] = service.protocol
    how["extra_body"] = service.proxy.extra_body if service.proxy else {}
    return {"how": how, "items": asyncio.run(_items(environment, asked))}


async def _items(environment: Any, asked: dict[str, Any]) -> str:  # noqa: ANN401 -- NeMo Evaluator's
    """Return the digest of all prompts and targets."""
    await environment.prepare()
    number = await environment.dataset_size()
    if number < asked["items"]:
        message = f"it has {number} items, the suite asks for {asked['items']}. Set its items."
        raise Mistake(message)
    sha = hashlib.sha256()
    for index in range(number):
        seed = await environment.seed(index)
        if seed.sandbox_spec is not None or seed.verify_sandbox_spec is not None:
            message = f"item {index} needs a container. Take another benchmark."
            raise Mistake(message)
        if asked["cluster"] and asked["cluster"] not in seed.metadata:
            message = f"item {index} has no field '{asked['cluster']}' to group it by."
            raise Mistake(message)
        texts = [seed.prompt, seed.expected_answer, seed.messages, seed.system]
        sha.update(json.dumps(texts, default=str).encode() + b"\n")
        if index == 0:
            await _try_scorer(environment, seed)
    return sha.hexdigest()


async def _try_scorer(environment: Any, seed: Any) -> None:  # noqa: ANN401 -- NeMo Evaluator's
    """Score the first item's own target.

    Raises:
        Mistake: its scorer fails, or needs what is not there: then every answer would be wrong.
    """
    started: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen":
            started.append(Path(str(arguments[0])).name)

    sys.addaudithook(watch)
    try:
        result = await environment.verify(
            seed.expected_answer, seed.expected_answer, **seed.metadata
        )
    except Exception as error:
        message = f"its scorer fails on item 0: {_short(f'{type(error).__name__}: {error}')}"
        raise Mistake(message) from error
    if result.scoring_details.get("needs_judge"):
        message = "it is scored by another model (a judge), which harness does not start."
        raise Mistake(message)
    missing = [one for one in started if one in _CONTAINERS and shutil.which(one) is None]
    if missing:
        message = f"its scorer needs '{missing[0]}', which is not on this machine."
        raise Mistake(message)


def _short(error: object) -> str:
    """Return an error as one line."""
    return " ".join(str(error).split())[:_LONGEST]


if __name__ == "__main__":
    main()
