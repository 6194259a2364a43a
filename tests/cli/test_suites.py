"""`harness suite check`, and that every command which asks a suite tells its mistakes first."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import shipped
from tests.own_tasks import ASKED, ASKED_TO_CHOOSE, GENERATED, OwnTasks
from tests.typed import Done

Cli = Callable[..., Done]


@pytest.fixture
def own(tmp_path: Path) -> OwnTasks:
    """A folder of tasks whose prompts the canary can read."""
    return OwnTasks(tmp_path / "mine")


def test_a_sound_suite_is_told_what_it_can_decide(cli: Cli, own: OwnTasks) -> None:
    done = cli("suite", "check", own.suite, "--model", "canary", "--json")
    assert done.code == 0
    assert done.json["mistakes"] == []
    assert [one["task"] for one in done.json["tasks"]] == ["own_next", "own_choice"]
    assert done.json["joint_probability_of_go"] > 0.99
    assert [one["num_cut"] for one in done.json["prompts"]] == [0, 0]


def test_all_mistakes_are_told_at_once(cli: Cli, own: OwnTasks) -> None:
    own.write_task(GENERATED, doc_to_text="{{promt}}")
    own.write_suite({**ASKED, "filter": "strict", "margin": 0.001}, ASKED_TO_CHOOSE)
    done = cli("suite", "check", own.suite)
    assert done.code == 2
    for words in ("3 mistakes", "'promt'", "'strict'", "cannot be met"):
        assert words in done.out


def test_all_fields_that_are_wrong_are_told_at_once(cli: Cli, own: OwnTasks) -> None:
    own.write_suite({**ASKED, "margn": 0.1}, seed=-1, max_len=9)
    done = cli("suite", "check", own.suite)
    assert done.code == 2
    for words in ("margn", "'margin'", "seed", "max_len", "'max_model_len'"):
        assert words in done.out


def without_template(folder: Path) -> Path:
    model = Path(shutil.copytree(shipped.canary() / "model", folder / "model"))
    (model / "chat_template.jinja").unlink(missing_ok=True)
    config = model / "tokenizer_config.json"
    values = json.loads(config.read_text())
    values.pop("chat_template", None)
    config.write_text(json.dumps(values))
    return model


def test_a_model_that_cannot_be_asked_in_chats_is_told(cli: Cli, own: OwnTasks) -> None:
    own.write_suite(apply_chat_template=True)
    done = cli("suite", "check", own.suite, "--model", without_template(own.root))
    assert done.code == 2
    assert "it has no chat template" in done.out


def test_more_tokens_than_the_model_has_positions_are_told(cli: Cli, own: OwnTasks) -> None:
    own.write_suite(max_model_len=4096)
    done = cli("suite", "check", own.suite, "--model", "canary")
    assert done.code == 2
    assert "'canary' has 1024 positions. Set max_model_len to at most 1024." in done.out


def test_prompts_that_would_be_cut_are_told(cli: Cli, own: OwnTasks) -> None:
    own.write_suite(ASKED, max_model_len=14)
    done = cli("suite", "check", own.suite, "--model", "canary")
    assert done.code == 2
    assert "of 60 prompts do not fit into the suite's max_model_len of 14 tokens" in done.out


def test_room_for_thoughts_the_answer_and_the_prompt_is_told(cli: Cli, own: OwnTasks) -> None:
    thinks = {"thinking": True, "think_end_token": "</think>", "apply_chat_template": True}
    own.write_suite(ASKED, **thinks, thinking_budget=40, max_model_len=64)
    done = cli("suite", "check", own.suite, "--model", "canary")
    assert done.code == 2
    assert (
        "60 of 60 prompts do not fit into the suite's max_model_len of 64 tokens of which the "
        "thoughts may take 40 and the answer may take 8, and would be cut" in done.out
    )
    own.write_suite(ASKED, **thinks, thinking_budget=60, max_model_len=64)
    done = cli("suite", "check", own.suite, "--model", "canary")
    assert "may think for 60 tokens and answer with 8, which leaves no room" in done.out


def test_answers_longer_than_their_budget_are_told(cli: Cli, own: OwnTasks) -> None:
    own.write_items("own_next", [{**one, "answer": "1234567890" * 3} for one in own.items])
    done = cli("suite", "check", own.suite, "--model", "canary")
    assert done.code == 2
    assert "60 of 60 expected answers are longer than its max_gen_toks (8)" in done.out


@pytest.mark.parametrize(
    "command",
    [
        ("e2e", "--model", "canary", "--qformat", "nvfp4", "--plan"),
        ("e2e", "--model", "canary", "--qformat", "nvfp4"),
        ("gate", shipped.canary() / "model", "--baseline", "canary"),
        ("score", shipped.canary() / "model", "--out", "scores"),
        ("score", "http://localhost:1", "--out", "scores"),
        ("baseline", "add", "--model", "canary"),
    ],
    ids=lambda command: " ".join(map(str, (*command[:2], *command[-1:]))).replace("/", ""),
)
def test_every_command_tells_a_suites_mistakes_before_anything_runs(
    cli: Cli, own: OwnTasks, tmp_path: Path, command: tuple[object, ...]
) -> None:
    own.write_task(GENERATED, doc_to_text="{{promt}}")
    own.write_suite({**ASKED, "filter": "strict"}, tasks_from=None)
    (tmp_path / "here").mkdir()
    done = cli(
        *command,
        *("--suite", own.suite, "--tasks", own.folder, "--engine", "reference"),
        cwd=tmp_path / "here",
    )
    assert done.code == 2
    assert "'promt'" in done.err
    assert "'strict'" in done.err
    assert list((tmp_path / "here").iterdir()) == []
