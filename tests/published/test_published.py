"""Checkpoints as their makers publish them: each is read, or refused by the name of its format.

The expected endings are what is right for files that engines load every day. README.md has the
table of what is answered.
"""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.published.asking import ENGINES, NOT_READ
from tests.published.build import build
from tests.published.table import Row, looked_for, read_folder, row_of, stored
from tests.tiers import slow

README = Path(__file__).with_name("README.md")
MODELS = {model.name: model for model in stored()}
FORMAT = {
    "moonshotai--Kimi-K2.5": "4-bit integers in groups of 32",
    "moonshotai--Kimi-K3": "MXFP4 (compressed-tensors",
}
"""What is not read, by the name that the refusal gives it."""
READ = [name for name in MODELS if name not in FORMAT]
UNSEEN = {"nvidia--Qwen3.6-35B-A3B-NVFP4": "KV cache"}
"""Models one of whose files says what engines do not look for there, and about what."""

Ask = Callable[[str], Row]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """Return what is answered about a model."""

    @cache
    def ask(name: str) -> Row:
        return row_of(MODELS[name], tmp_path_factory.mktemp("published"))

    ask(READ[0])  # what is imported for it, the first test is not to pay
    return ask


@pytest.mark.parametrize("name", READ)
def test_a_published_checkpoint_is_read_without_an_error(ask: Ask, name: str) -> None:
    assert ask(name).alone.errors == ()
    assert ask(name).alone.code == 0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", READ)
def test_every_known_version_takes_it_for_what_it_is(ask: Ask, name: str, engine: str) -> None:
    assert ask(name).engines[engine].errors == ()
    assert ask(name).engines[engine].code == 0


@pytest.mark.parametrize("name", FORMAT)
def test_a_format_that_is_not_read_is_refused_by_its_name(ask: Ask, name: str) -> None:
    row = ask(name)
    for answer in (row.alone, *row.engines.values(), row.plan):
        assert (answer.code, answer.reason) == (2, NOT_READ)
        assert FORMAT[name] in answer.message


@pytest.mark.parametrize("name", READ)
def test_the_gate_plans_or_says_that_it_serves_no_such_format(ask: Ask, name: str) -> None:
    plan = ask(name).plan
    assert plan.code == 0 or (plan.code, plan.reason) == (2, NOT_READ)


@pytest.mark.parametrize("name", UNSEEN)
def test_what_one_file_alone_declares_is_a_warning(ask: Ask, name: str) -> None:
    alone = ask(name).alone
    assert alone.warnings == ("declaration-seen",)
    assert UNSEEN[name] in alone.message


@pytest.mark.parametrize("name", MODELS)
def test_the_table_says_what_is_answered(ask: Ask, name: str) -> None:
    said = " | ".join(ask(name).cells[:-1])
    assert f"| {said} | " in README.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", READ)
def test_each_planted_fault_is_found_and_named(ask: Ask, name: str) -> None:
    wrong = {fault: one.wrong for fault, one in ask(name).faults.items() if one.wrong}
    assert wrong == {}


@pytest.fixture(scope="module", params=ENGINES)
@slow("plants each fault again for each version")
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("name", READ)
def test_each_planted_fault_is_found_with_an_engine_too(
    name: str, version: str, tmp_path: Path
) -> None:
    built = build(MODELS[name].config, MODELS[name].sidecar)
    looked = looked_for(built, tmp_path, version)
    assert {fault: one.wrong for fault, one in looked.items() if one.wrong} == {}


def test_a_family_that_nobody_knows_is_built_from_what_is_named(tmp_path: Path) -> None:
    experts = [f"decoder.layers.1.moe.experts.{e}.w{p}" for e in range(9) for p in (1, 2, 3)]
    layers = {name: {"quant_algo": "NVFP4", "group_size": 16} for name in experts}
    layers["decoder.layers.0.attention.wq"] = {"quant_algo": "FP8"}
    said = {"quant_algo": "MIXED_PRECISION", "quantized_layers": layers}
    config = {"model_type": "x", "num_hidden_layers": 2, "num_experts": 9}
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    (tmp_path / "model/hf_quant_config.json").write_text(json.dumps({"quantization": said}))
    row = row_of(next(read_folder(tmp_path)), tmp_path / "work")
    assert row.name == "model"
    assert row.declared == "MIXED_PRECISION (FP8, NVFP4)"
    assert (row.alone.word, row.faults["quantized router"].wrong) == ("read", "")
