"""One folder or repository in both places is refused, however each arm was told to load it."""

from pathlib import Path
from typing import Any

import pytest

from harness.errors import IncomparableError
from harness.foreign.compare import check_arms
from harness.foreign.inspect_ai import recorded_of
from harness.foreign.inspect_logs import Log
from tests.foreign_results.conftest import change_results, judge, refusal
from tests.foreign_results.test_inspect_ai import kept

Arms = tuple[Path, Path]
MARGIN = ("--margin", 0.02)


def loaded(arm: Path, kind: str, model: str, **arguments: object) -> None:
    """Say that lm-eval loaded a model, and how."""

    def say(values: dict[str, Any]) -> None:
        values.update(model_source=kind, model_name=model)
        values["config"]["model_args"] = {"pretrained": model} | arguments

    change_results(arm, say)


def test_two_engines_of_one_model_are_refused(arms: Arms) -> None:
    loaded(arms[0], "hf", "team/model", dtype="bfloat16")
    loaded(arms[1], "vllm", "team/model", max_model_len=4096)
    assert "are of the same model 'team/model'" in refusal(*arms, *MARGIN)


def test_a_model_in_the_hub_s_cache_is_its_repository(arms: Arms) -> None:
    loaded(arms[0], "hf", "team/model")
    loaded(arms[1], "hf", "/hub/models--team--model/snapshots/abc")
    assert "are of the same model" in refusal(*arms, *MARGIN)


@pytest.mark.parametrize(
    ("name", "value"),
    [("load_in_8bit", True), ("revision", "int4"), ("load_format", "bitsandbytes")],
)
def test_a_model_that_was_quantized_as_it_was_loaded_is_another(
    arms: Arms, name: str, value: object
) -> None:
    loaded(arms[0], "hf", "team/model")
    loaded(arms[1], "hf", "team/model", **{name: value})
    assert judge(*arms, *MARGIN).code == 4


def of_model(arm: str, model: str, arguments: dict[str, object]) -> list[Log]:
    logs = kept(arm)
    for log in logs:
        log.header["eval"].update(model=model, model_args=arguments)
    return logs


@pytest.mark.parametrize(
    ("model", "arguments"),
    [("vllm/team/model", {"dtype": "half"}), ("hf/local", {"model_path": "team/model"})],
)
def test_two_providers_of_inspect_ai_with_one_model_are_refused(
    model: str, arguments: dict[str, object]
) -> None:
    baseline = recorded_of(Path("baseline"), of_model("baseline", "hf/team/model", {}))
    candidate = recorded_of(Path("candidate"), of_model("candidate", model, arguments))
    with pytest.raises(IncomparableError, match="are of the same model"):
        check_arms(baseline, candidate)


def test_the_model_of_a_provider_s_server_may_be_any() -> None:
    arms = ("baseline", "candidate")
    check_arms(*(recorded_of(Path(arm), of_model(arm, "openai/m", {})) for arm in arms))
