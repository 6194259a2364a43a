"""Layers run one after another only where their model runs them so, and return as it unpacks."""

from pathlib import Path

import pytest

from harness.errors import ModelError
from scripts.families.make import make
from tests.calibrate.conftest import MakeCase


@pytest.mark.parametrize("name", ["gptj", "bamba", "nemotron_h"])
def test_layers_that_return_tuples_are_measured_as_in_the_whole_model(
    name: str, tmp_path: Path, make_case: MakeCase
) -> None:
    folder = make(name, tmp_path)[0]
    whole, layerwise = (
        make_case(folder, layerwise=layerwise, kv_cache="none").run() for layerwise in (False, True)
    )
    assert layerwise.input_amax == whole.input_amax


def test_layers_that_run_more_than_once_are_refused(tmp_path: Path, make_case: MakeCase) -> None:
    case = make_case(make("hrm_text", tmp_path)[0], layerwise=True, kv_cache="none")
    with pytest.raises(ModelError, match=r"decoder layer 0 .* ran \d+ times .* Type --whole"):
        case.run()


def test_what_transformers_cannot_run_ends_in_one_line(
    tmp_path: Path, make_case: MakeCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.llama.modeling_llama import LlamaAttention  # noqa: PLC0415

    def broken(*_: object, **__: object) -> None:
        message = "expected m1 and m2\nto have the same dtype"
        raise RuntimeError(message)

    folder = make("llama", tmp_path)[0]
    monkeypatch.setattr(LlamaAttention, "forward", broken)
    case = make_case(folder, layerwise=True, kv_cache="none")
    with pytest.raises(ModelError, match="expected m1 and m2 to have the same dtype"):
        case.run()
