"""Every mistake in a configuration of NeMo Evaluator is told before anything is served."""

from collections.abc import Callable, Mapping

import pytest

from harness.nel import examine
from harness.recipe import load_suite
from tests.nel.conftest import BENCHMARK, Suite

Change = Callable[[Suite], object]


def mistakes_of(suite: Suite, *, task_code: bool = True) -> list[str]:
    suite.write()
    told = examine(load_suite(str(suite.file), task_code=task_code))
    return [str(mistake) for mistake in told.mistakes]


def bench(**changes: object) -> Change:
    return lambda suite: suite.benchmark.update(changes)


def code(old: str, new: str) -> Change:
    assert old in BENCHMARK
    return lambda suite: suite.code.write_text(BENCHMARK.replace(old, new))


def service(**changes: object) -> Change:
    return lambda suite: suite.service.update(changes)


MISTAKES: Mapping[str, tuple[Change, str]] = {
    "another task": (lambda s: s.task(name="other"), "has 0 benchmarks 'other', of sums."),
    "an unknown benchmark": (
        lambda s: (s.task(name="gsm9k"), bench(name="gsm9k")(s)),
        "Unknown environment 'gsm9k'",
    ),
    "an unknown key": (bench(repeat=3), "is refused by NeMo Evaluator"),
    "an unknown service": (
        lambda s: s.settings["services"].update(other=s.settings["services"].pop("model")),
        "'model' not in services",
    ),
    "a variable that is not set": (service(api_key="${NOBODY_SET}"), "NOBODY_SET"),
    "a cluster": (
        lambda s: s.settings.update(cluster={"type": "docker", "image": "nel"}),
        "cluster 'docker'",
    ),
    "a container's benchmark": (
        lambda s: (s.task(name="image"), bench(name="container://nvcr.io/image")(s)),
        "'container://' needs containers",
    ),
    "an agent": (
        bench(solver={"type": "oracle"}),
        "solver 'oracle' is not supported",
    ),
    "a sandbox": (bench(sandbox={"type": "docker"}), "sandbox 'docker' needs containers"),
    "a judge": (
        lambda s: (
            s.settings["services"].update(judge=dict(s.service)),
            bench(scoring={"metrics": [{"type": "judge", "name": "j", "service": "judge"}]})(s),
        ),
        "metrics of type judge need another model",
    ),
    "answers that are left out": (bench(skip_failed=True), "skip_failed leaves out answers"),
    "a cache in the model's place": (
        service(proxy={"interceptors": [{"name": "caching"}]}),
        "has interceptors or extra_headers",
    ),
    "another temperature": (
        service(generation={"max_tokens": 7, "temperature": 0.7}),
        "temperature is 0.7 there and 0.0 in the suite",
    ),
    "another metric": (lambda s: s.task(metric="accuracy"), "it has no metric 'accuracy', only"),
    "other examples": (bench(fewshot=5), "num_fewshot is 5 there and 0 in the suite"),
    "one benchmark twice": (
        lambda s: s.settings["benchmarks"].append(dict(s.benchmark, name="bench.py:sums")),
        "has 2 benchmarks 'sums'",
    ),
    "groups that items lack": (
        lambda s: s.task(cluster="subject", clusters=4),
        "item 0 has no field 'subject' to group it by",
    ),
    "another spelling": (
        lambda s: (s.task(name="Sums"), bench(name="bench.py:Sums")(s)),
        "NeMo Evaluator calls it 'sums'",
    ),
    "no bound": (service(generation={}), "nothing bounds its answers"),
    "too long a bound": (service(generation={"max_tokens": 256}), "leaves no room for a prompt"),
    "another protocol": (service(protocol="responses"), "protocol 'responses' is not supported"),
    "too few items": (lambda s: s.task(items=21), "it has 20 items, the suite asks for 21"),
    "broken Python": (code("def items", "def items :("), "SyntaxError"),
    "items that are not there": (code("items.jsonl", "none.jsonl"), "FileNotFoundError"),
    "a scorer that fails": (code("sample.target}", "sample.wanted}"), "its scorer fails on item 0"),
    "a scorer that needs a judge": (
        code('return {"correct"', 'return {"needs_judge": True, "correct"'),
        "is scored by another model",
    ),
    "a scorer that needs a container": (
        code(
            "    return",
            "    import subprocess\n    try:\n        subprocess.run(['podman', 'run'])\n"
            "    except OSError:\n        pass\n    return",
        ),
        "its scorer needs 'podman'",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told(nel: Mapping[str, str], suite: Suite, name: str) -> None:
    assert nel
    change, said = MISTAKES[name]
    change(suite)
    (mistake,) = mistakes_of(suite)
    assert said in mistake


def test_all_mistakes_are_told_at_once(nel: Mapping[str, str], suite: Suite) -> None:
    assert nel
    bench(skip_failed=True, sandbox={"type": "docker"})(suite)
    assert len(mistakes_of(suite)) == 2


def test_a_benchmark_s_code_runs_only_when_it_is_asked_for(
    nel: Mapping[str, str], suite: Suite
) -> None:
    assert nel
    suite.code.write_text("raise SystemExit(9)")
    (mistake,) = mistakes_of(suite, task_code=False)
    assert "'bench.py' is code, which would run here" in mistake


def test_code_of_a_task_that_is_not_asked_needs_nothing(
    nel: Mapping[str, str], suite: Suite
) -> None:
    assert nel
    suite.settings["benchmarks"].append(suite.benchmark | {"name": "gsm8k"})
    bench(name="bench.py:sums")(suite)
    suite.task(name="gsm8k")
    assert not any("is code" in mistake for mistake in mistakes_of(suite, task_code=False))


def test_code_that_another_file_names_needs_to_be_asked_for_too(
    nel: Mapping[str, str], suite: Suite
) -> None:
    assert nel
    suite.write()
    suite.config.rename(suite.config.with_name("base.yaml"))
    suite.config.write_text("defaults: [{_base_: base}]")
    told = examine(load_suite(str(suite.file), task_code=False))
    assert "is code, which would run here" in str(told.mistakes[0])


def test_what_decides_the_answers_is_in_the_digest(nel: Mapping[str, str], suite: Suite) -> None:
    assert nel
    digests = set()
    items = suite.file.with_name("items.jsonl")
    for change in (
        lambda: None,
        lambda: items.write_text(items.read_text().replace("54+39", "54+38")),
        lambda: suite.code.write_text(BENCHMARK.replace(".strip()", "")),
    ):
        change()
        digests.add(examine(load_suite(str(suite.file), task_code=True)).spec.digest)
    assert len(digests) == 3
