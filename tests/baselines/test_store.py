"""The store: what is listed, found and removed, and who may have an entry open."""

import fcntl
import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness import baselines
from harness.artifacts import BaselineInputs
from harness.baselines import Kept
from harness.errors import BaselineError
from tests.baselines.conftest import ENGINE, VERSIONS
from tests.typed import typed

Keep = Callable[..., Kept]


def test_a_list_says_what_each_baseline_is_and_how_alike_its_two_runs_are(keep: Keep) -> None:
    kept = keep()
    done = typed("baseline", "list", "--json")
    (listed,) = json.loads(done.out)["baselines"]
    assert (listed["key"], listed["model"], listed["num_items"]) == (kept.key, "canary", 10)
    assert (listed["rerun_share"], listed["rerun_flip_rate"]) == (1.0, 0.2)
    assert listed["inputs"]["versions"]["lm_eval"] == "0.4.13"
    assert "20.00%" in typed("baseline", "list").out


def test_an_empty_store_is_listed_as_empty(store: Path) -> None:
    done = typed("baseline", "list")
    assert (done.code, done.out) == (0, f"0 baselines in {store}\n")


def test_an_entry_without_a_manifest_is_ignored(keep: Keep) -> None:
    """As older versions left them, and as a measurement that was killed leaves them."""
    keep()
    old = keep(model_digest="0" * 64)
    (old.folder / "entry.json").unlink()
    damaged = keep(model_digest="1" * 64)
    (damaged.folder / "entry.json").write_text('{"inputs": 5}')
    assert len(json.loads(typed("baseline", "list", "--json").out)["baselines"]) == 1
    assert typed("baseline", "rm", old.key).code == 2


def test_the_beginning_of_a_key_is_enough_to_remove_one(keep: Keep) -> None:
    kept, other = keep(), keep(model_digest="0" * 64)
    done = typed("baseline", "rm", kept.key[:6].upper())
    assert done.code == 0
    assert done.out.startswith(f"removed {kept.key[:12]}: canary on suite tiny")
    assert [k.key for k in baselines.kept_baselines()] == [other.key]
    assert not kept.folder.exists()


@pytest.mark.parametrize("prefix", ["", "zz"])
def test_a_prefix_that_fits_not_exactly_one_removes_nothing(keep: Keep, prefix: str) -> None:
    keep()
    done = typed("baseline", "rm", prefix)
    assert done.code == 2
    assert "harness baseline list" in done.line()
    assert len(baselines.kept_baselines()) == 1


def test_a_prefix_of_two_keys_removes_neither(keep: Keep) -> None:
    kept = [keep(model_digest=f"{n:064x}") for n in range(20)]
    first = next(k.key[0] for k in kept if sum(o.key[0] == k.key[0] for o in kept) > 1)
    with pytest.raises(BaselineError, match="baselines begin with"):
        baselines.remove_baseline(first)
    assert len(baselines.kept_baselines()) == 20


def test_a_baseline_that_somebody_has_open_is_not_removed(keep: Keep) -> None:
    kept = keep()
    with (kept.folder / "entry.lock").open("a+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BaselineError, match="is being measured or read"):
            baselines.remove_baseline(kept.key)
    assert kept.folder.exists()


def test_who_waits_for_an_entry_that_is_removed_meanwhile_gets_a_new_one(keep: Keep) -> None:
    kept = keep()
    opened: list[bool] = []

    def wait() -> None:
        with baselines.entry(kept.key) as folder:
            (folder / "written").touch()
            opened.append((folder / "entry.json").exists())

    with baselines.entry(kept.key) as folder:
        waiting = threading.Thread(target=wait)
        waiting.start()
        shutil.rmtree(folder)
    waiting.join()
    assert opened == [False]
    assert (kept.folder / "written").exists()


CHANGES: list[tuple[dict[str, object], str]] = [
    ({"model_digest": "c" * 64}, "the model's digest was 'aaaaaaaaaaaa' and is 'cccccccccccc'"),
    ({"suite_digest": "c" * 64}, "the suite was 'tiny bbbbbbbbbbbb' and is 'tiny cccccccccccc'"),
    ({"versions": VERSIONS | {"harness": "9"}}, "the version of harness was '0.1.0' and is '9'"),
    ({"versions": {"harness": "0.1.0", "torch": "2.13.0"}}, "lm_eval was '0.4.13' and is 'none'"),
    ({"engine": replace(ENGINE, version="0.33.0")}, "version was 'None' and is '0.33.0'"),
    ({"engine": replace(ENGINE, arguments=("a=1", "b=2"))}, "arguments was '' and is 'a=1 b=2'"),
    ({"engine": replace(ENGINE, numerics="deployed")}, "was 'declared' and is 'deployed'"),
]


@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_every_ingredient_of_a_key_is_part_of_it_and_named_when_it_changes(
    inputs: Callable[..., BaselineInputs], change: dict[str, object], words: str
) -> None:
    old, new = inputs(), inputs(**change)
    assert old.key != new.key
    (named,) = old.changes(new)
    assert words in str(named)


def test_the_name_under_which_a_model_was_typed_is_no_ingredient(
    inputs: Callable[..., BaselineInputs],
) -> None:
    assert inputs().key == inputs(model="/models/canary").key


def test_the_newest_other_baseline_of_a_model_and_suite_says_what_changed(
    keep: Keep, inputs: Callable[..., BaselineInputs]
) -> None:
    keep()
    keep(model="other", model_digest="d" * 64)
    found = baselines.outdated_by(inputs(versions=VERSIONS | {"torch": "2.14.0"}))
    assert found is not None
    assert [str(c) for c in found[1]] == ["the version of torch was '2.13.0' and is '2.14.0'"]
    assert baselines.outdated_by(inputs(suite="another")) is None
    assert baselines.outdated_by(inputs()) is None
