"""The shipped smoke sets, and what they are no part of."""

import unicodedata
from pathlib import Path

import pytest
import yaml

from harness import shipped
from harness.errors import SuiteError
from harness.recipe import load_smoke, load_suite

SUITES = sorted(path.stem for path in shipped.suites().glob("*.yaml"))


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text((shipped.smoke() / "canary.yaml").read_text(encoding="utf-8"))
    return path


def change(path: Path, **values: object) -> None:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump(content | values), encoding="utf-8")


@pytest.mark.parametrize("name", SUITES)
def test_every_shipped_suite_has_a_smoke_set_that_fits_its_length(name: str) -> None:
    suite = load_suite(name)
    assert suite.smoke is not None
    assert suite.smoke.max_model_len <= suite.max_model_len


def test_the_general_set_asks_what_salad_cannot_answer() -> None:
    general = load_smoke("general")
    texts = [passage.text for passage in general.passages]
    scripts = {unicodedata.name(c).split()[0] for t in texts for c in t if c.isalpha()}
    assert {"LATIN", "CJK", "HIRAGANA", "KATAKANA"} <= scripts
    assert any("def " in text for text in texts)
    asks = {ask.id: ask for ask in general.asks}
    assert asks["product"].expect == ("391",)
    assert max(len(text) for text in texts) > 5000
    assert max(len(ask.prompt) for ask in general.asks if ask.expect) > 5000
    assert max(ask.max_tokens for ask in general.asks if not ask.expect) >= 256


def test_other_prompts_are_another_set_and_leave_every_score_comparable(
    tmp_path: Path, written: Path
) -> None:
    suite_file = tmp_path / "suite.yaml"
    suite_file.write_text((shipped.suites() / "canary.yaml").read_text(encoding="utf-8"))
    change(suite_file, smoke="mine.yaml")
    before = load_suite(str(suite_file))
    change(written, seed=5)
    after = load_suite(str(suite_file))
    assert before.smoke is not None
    assert after.smoke is not None
    assert before.smoke.digest != after.smoke.digest
    assert before.digest == after.digest == load_suite("canary").digest


def test_a_set_that_asks_for_more_than_servers_give_is_refused(written: Path) -> None:
    change(written, top_k=50)
    with pytest.raises(SuiteError, match="top_k"):
        load_smoke(str(written))


def test_two_questions_of_one_name_are_refused(written: Path) -> None:
    content = yaml.safe_load(written.read_text(encoding="utf-8"))
    change(written, asks=[*content["asks"], content["asks"][0]])
    with pytest.raises(SuiteError, match="add-1"):
        load_smoke(str(written))


def test_an_unknown_set_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SuiteError, match="canary"):
        load_smoke("canarry")
