"""`harness diff` as it is typed: causes first; exit 0 whatever differs, 2 for what is no run."""

from pathlib import Path

import torch

from tests.comparing.conftest import SCALE, TENSORS, Made, Make, make
from tests.typed import typed

__all__ = ["make"]
MOVED = {**TENSORS, SCALE: torch.tensor(0.125)}


def test_the_first_lines_say_what_happened_and_what_could_have_caused_it(make: Make) -> None:
    lost = Made(tensors=MOVED, wrong=frozenset(range(20)))
    done = typed("diff", make("a", Made()), make("b", lost))
    assert done.code == 0
    outcome, head, first = done.out.splitlines()[:3]
    assert "B lost 20 and won 0 of 40 answers" in outcome
    assert head.startswith("what could have caused it")
    assert first == "  1. checkpoint (through answers)"


def test_a_scale_that_moved_is_shown_with_its_ratio(make: Make) -> None:
    done = typed("diff", make("a", Made()), make("b", Made(tensors=MOVED)))
    assert "1 x model.layers.*.up_proj.input_scale: other values, B is 0.25 times A" in done.out


def test_json_has_the_same(make: Make) -> None:
    a, b = make("a", Made()), make("b", Made(tensors=MOVED, wrong=frozenset({1})))
    found = typed("diff", a, b, "--json").json
    assert [cause["part"] for cause in found["causes"]] == ["checkpoint"]
    assert found["flips"][0]["b"] == "wrong"


def test_what_is_no_run_is_refused(make: Make, tmp_path: Path) -> None:
    done = typed("diff", make("a", Made()), tmp_path)
    assert done.code == 2
    assert "neither a run directory nor a scored arm" in done.line()


def test_one_run_twice_is_refused(make: Make) -> None:
    a = make("a", Made())
    assert typed("diff", a, a.parent / "." / "a").code == 2


def test_records_of_another_tool_are_compared_item_by_item() -> None:
    data = Path(__file__).parents[1] / "foreign_results" / "data" / "lm_eval"
    done = typed("diff", data / "baseline", data / "candidate", "--json")
    assert done.code == 0
    assert all(task["num_items"] == 20 for task in done.json["tasks"])
