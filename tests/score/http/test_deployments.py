"""`harness gate` of two running servers, on servers whose answers are known."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.score.conftest import CHOOSE, GENERATE, write_task
from tests.score.http.fake import ALPHABET, Handler, Script, Server
from tests.score.http.test_proof import ANSWERS, READINGS
from tests.typed import Done, typed

ITEMS = 60
Gate = Callable[..., Done]
KEYS = ("HARNESS_API_KEY", "HARNESS_CANDIDATE_API_KEY", "HARNESS_BASELINE_API_KEY")


@contextmanager
def answering(script: Script) -> Iterator[str]:
    server = Server(("127.0.0.1", 0), type("Scripted", (Handler,), {"script": script}))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def baseline(served: Callable[..., Any], tokenizer_folder: Path) -> Script:
    listed: dict[str, object] = {
        "id": "tiny",
        "root": str(tokenizer_folder),
        "max_model_len": 64,
        "owned_by": "vllm",
    }
    return Script(served({}).tokenizer, ALPHABET, models=[listed])


@pytest.fixture
def candidate(baseline: Script) -> Script:
    own: dict[str, Any] = {"faults": {}, "seen": [], "payloads": [], "waiting": []}
    return replace(baseline, models=list(baseline.models), **own)


@pytest.fixture
def suite_file(tasks: Path, tmp_path: Path) -> Path:
    rows: list[dict[str, object]] = [
        {"prompt": f"{n}: a", "target": "b"} if n % 10 else {"prompt": f"{n}: k", "target": "b"}
        for n in range(ITEMS)
    ]
    write_task(tasks, "tiny_next", rows, GENERATE)
    choices: list[dict[str, object]] = [
        {"prompt": f"{n}: a", "choices": ["b", "c"], "gold": 0 if n % 10 else 1}
        for n in range(ITEMS)
    ]
    write_task(tasks, "tiny_choice", choices, CHOOSE)
    common = {"tier": "critical", "flip_rate": 0.0, "items": ITEMS, "num_fewshot": 0}
    of_tasks = [
        {"name": "tiny_next", "metric": "exact_match", "chance": 0.0, "filter": "none"},
        {"name": "tiny_choice", "metric": "acc", "chance": 0.5, "filter": "none"},
    ]
    values = {
        "version": 1,
        "name": "tiny",
        "tasks": [common | {"margin": 0.2} | one for one in of_tasks],
        "max_model_len": 32,
        "apply_chat_template": False,
        "seed": 1,
        "batch_size": 3,
        "confidence": 0.95,
        "max_truncated": 0.2,
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@pytest.fixture
def gate(baseline: Script, candidate: Script, suite_file: Path, tmp_path: Path) -> Iterator[Gate]:
    """Type the gate of the two servers, which run until the test ends."""
    with answering(baseline) as theirs, answering(candidate) as ours:

        def run(*more: object, **changed: object) -> Done:
            urls = {"candidate_url": ours, "baseline_url": theirs} | changed
            words = [w for k, v in urls.items() for w in (f"--{k.replace('_', '-')}", v)]
            options = ("--suite", suite_file, "--run-dir", tmp_path / "run", "--json")
            return typed("gate", *words, *options, *more)

        yield run


def test_two_deployments_that_answer_alike_get_go_where_what_is_unseen_may_be(
    gate: Gate, tmp_path: Path
) -> None:
    done = gate("--missing-evidence", "go")
    assert done.code == 0, done.err
    verdict = done.json["verdict"]
    assert verdict["reason_codes"] == ["non-inferior", "load-not-reconciled", "kernels-unknown"]
    assert "not seen, as this run may: load-not-reconciled, kernels-unknown" in verdict["summary"]
    scope = "\n".join(verdict["scope"])
    for words in (
        "the deployment of 'tiny' at http://127.0.0.1:",
        "engine vllm 0.32.0 on not recorded",
        "arithmetic computed: not known",
        "no files were verified",
        "quantized or not is not known",
    ):
        assert words in scope
    assert verdict["checkpoint_digest"] is None
    assert done.json["serve_command"] is None
    for name in ("recipe.yaml", "report.md", "report.html", "junit.xml", "baseline/again"):
        assert (tmp_path / "run" / name).exists()


def test_what_is_not_seen_is_inconclusive_unless_it_is_said(gate: Gate) -> None:
    done = gate()
    assert done.code == 5
    assert done.json["reason_codes"][:2] == ["load-not-reconciled", "kernels-unknown"]


def test_a_candidate_that_answers_worse_is_no_go(gate: Gate, candidate: Script) -> None:
    candidate.successors = {**ALPHABET, "a": "c"}
    done = gate("--missing-evidence", "go")
    assert (done.code, done.json["decision"]) == (4, "NO-GO")
    assert "task-inferior" in done.json["reason_codes"]


def test_a_candidate_that_answers_worse_is_asked_no_more_where_that_was_typed(
    gate: Gate, candidate: Script
) -> None:
    candidate.successors = {**ALPHABET, "a": "c"}
    done = gate("--missing-evidence", "go", "--end-early")
    assert (done.code, done.json["decision"]) == (4, "NO-GO")
    assert done.json["reason_codes"][:2] == ["task-inferior", "ended-early"]


def test_a_run_that_is_typed_again_asks_only_for_proof(
    gate: Gate, baseline: Script, candidate: Script
) -> None:
    gate()
    asked = len(baseline.seen), len(candidate.seen)
    assert gate().code == 5
    assert (len(baseline.seen), len(candidate.seen)) == asked


def test_another_model_behind_an_address_is_scored_again(
    gate: Gate, baseline: Script, candidate: Script
) -> None:
    assert gate().code == 5
    asked = len(baseline.seen), len(candidate.seen)
    candidate.successors = {**ALPHABET, "a": "c"}
    assert gate().code == 4
    assert len(baseline.seen) == asked[0]
    assert len(candidate.seen) == 2 * asked[1]


def test_a_killed_run_continues_with_what_is_missing(
    gate: Gate, baseline: Script, candidate: Script
) -> None:
    baseline.health = 503
    baseline.faults["0: k"] = ["500"]
    failed = gate()
    assert (failed.code, failed.json["failure"]["stage"]) == (3, "score baseline")
    asked = len(candidate.seen)
    baseline.health, baseline.faults = 200, {}
    assert gate().code == 5
    assert len(candidate.seen) == asked


def test_status_and_report_know_such_a_run(gate: Gate, tmp_path: Path) -> None:
    gate()
    status = typed("status", tmp_path / "run", "--json")
    assert status.code == 0, status.err
    finished = [stage["stage"] for stage in status.json["stages"] if stage["finished"]]
    assert finished == ["score candidate", "score baseline", "judge"]
    assert typed("report", tmp_path / "run").code == 0
    report = (tmp_path / "run" / "report.md").read_text()
    assert "'tiny' at http://127.0.0.1:" in report
    assert "not seen: load-not-reconciled" in report


def test_a_planned_gate_of_deployments_asks_no_question(
    gate: Gate, candidate: Script, tmp_path: Path
) -> None:
    done = gate("--plan")
    assert done.code == 0, done.err
    assert done.json["candidate"].endswith("vllm 0.32.0")
    assert [task["task"] for task in done.json["tasks"]] == ["tiny_next", "tiny_choice"]
    assert candidate.payloads == []
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("number", "fault"), [*enumerate(sorted(ANSWERS | READINGS))])
def test_a_faulty_deployment_ends_with_exit_3_and_one_line(
    gate: Gate, baseline: Script, candidate: Script, number: int, fault: str
) -> None:
    script = (candidate, baseline)[number % 2]
    script.always, script.answers_proof = fault, False
    script.models = [{k: v for k, v in script.models[0].items() if k != "owned_by"}]
    done = gate()
    assert done.code == 3
    assert done.json["failure"]["stage"] == "prove"
    words = done.json["failure"]["message"]
    assert "does not prove that its answers can be scored" in words
    assert words.isprintable()
    assert done.json["verdict"] is None
    assert "Traceback" not in done.err


def test_a_deployment_that_stalls_ends_with_exit_3_and_one_line(
    gate: Gate, candidate: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.score.client._SECONDS_A_TOKEN", 0.0)
    candidate.always, candidate.answers_proof = "hang", False
    done = gate()
    assert (done.code, done.json["failure"]["stage"]) == (3, "prove")
    assert "TimeoutError" in done.json["failure"]["message"]


def test_chats_that_the_servers_render_are_judged_and_said(
    gate: Gate, suite_file: Path, baseline: Script, candidate: Script
) -> None:
    values = yaml.safe_load(suite_file.read_text(encoding="utf-8"))
    values |= {"apply_chat_template": True, "tasks": values["tasks"][:1]}
    suite_file.write_text(yaml.safe_dump(values), encoding="utf-8")
    with answering(candidate) as ours, answering(baseline) as theirs:
        refused = gate(candidate_url=f"{ours}/v1/chat/completions")
        assert refused.code == 2
        assert "the baseline is asked by completions and the candidate by chat" in refused.err
        chats = {"candidate_url": ours, "baseline_url": theirs}
        done = gate(
            "--missing-evidence", "go", **{k: f"{v}/v1/chat/completions" for k, v in chats.items()}
        )
    assert done.code == 0, done.err
    scope = "\n".join(done.json["verdict"]["scope"])
    assert "chats were rendered by the servers, by templates that nobody here has seen" in scope


def test_one_model_of_one_server_is_no_comparison(gate: Gate, baseline: Script) -> None:
    with answering(baseline) as url:
        done = gate(candidate_url=url, baseline_url=url.replace("127.0.0.1", "localhost"))
        assert done.code == 2
        assert "both addresses are model 'tiny' of one server" in done.err
        baseline.models.append(baseline.models[0] | {"id": "alias"})
        words = ("--candidate-model", "alias", "--baseline-model", "tiny")
        done = gate(*words, candidate_url=url, baseline_url=url)
        assert done.code == 2
        assert "both addresses are model 'alias' of one server" in done.err


def test_other_engines_are_judged_and_said(gate: Gate, candidate: Script) -> None:
    candidate.version = "0.33.0"
    done = gate("--missing-evidence", "go")
    assert done.code == 0, done.err
    said = "the candidate says that it is vllm 0.33.0 and the baseline vllm 0.32.0"
    assert any(said in line for line in done.json["verdict"]["scope"])


def test_other_tokenizers_are_no_comparison(
    gate: Gate, candidate: Script, tokenizer_folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for file in tokenizer_folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    values = json.loads((other / "tokenizer.json").read_text())
    vocabulary = values["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (other / "tokenizer.json").write_text(json.dumps(values))
    candidate.models = [candidate.models[0] | {"root": str(other)}]
    done = gate()
    assert done.code == 2
    assert "the tokenizers of the deployments differ in their vocabulary" in done.err
    assert gate("--tokenizer", tokenizer_folder).code == 5


def test_both_arms_get_the_same_room_for_a_prompt(
    gate: Gate, candidate: Script, baseline: Script, tasks: Path
) -> None:
    long: list[dict[str, object]] = [
        {"prompt": "a".rjust(n), "choices": ["b", "c"], "gold": 0} for n in range(1, ITEMS + 1)
    ]
    write_task(tasks, "tiny_choice", long, CHOOSE)
    candidate.models = [candidate.models[0] | {"max_model_len": 32}]
    baseline.models = [baseline.models[0] | {"max_model_len": 4096}]
    gate()
    asked = [{tuple(p["prompt"][0]) for p in arm.payloads} for arm in (candidate, baseline)]
    assert asked[0] == asked[1]
    assert max(map(len, asked[0])) == 31


def test_each_server_gets_its_own_key_and_nobody_else_sees_it(
    gate: Gate,
    baseline: Script,
    candidate: Script,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    candidate.key, baseline.key = "sk-of-candidate", "sk-of-baseline"
    for variable in KEYS:
        monkeypatch.delenv(variable, raising=False)
    done = gate()
    assert done.code == 2
    assert "wants an API key. Set HARNESS_API_KEY" in done.err
    monkeypatch.setenv("HARNESS_CANDIDATE_API_KEY", candidate.key)
    monkeypatch.setenv("HARNESS_API_KEY", baseline.key)
    done = gate()
    assert done.code == 5, done.err
    monkeypatch.setenv("HARNESS_BASELINE_API_KEY", "sk-wrong")
    refused = gate()
    assert refused.code == 2
    assert "refuses the API key in HARNESS_BASELINE_API_KEY" in refused.err
    written = [p.read_text() for p in (tmp_path / "run").rglob("*") if p.is_file()]
    for text in (*written, done.out, done.err, refused.out, refused.err):
        assert "sk-" not in text


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--engine", "vllm"), "--engine is for a server that harness starts"),
        (("--engine-arg", "a=1"), "--engine-arg is for a server that harness starts"),
        (("--baseline", "canary"), "--baseline is for a server that harness starts"),
        (("folder",), "'folder' is a checkpoint to serve"),
        (("--waivers", "no.yaml"), "no.yaml"),
        (("--missing-evidence", "maybe"), "unknown policy 'maybe'"),
        (("--checkpoint", "nowhere"), "nowhere"),
    ],
)
def test_options_that_do_not_go_with_deployments_are_refused(
    gate: Gate, more: tuple[str, ...], words: str
) -> None:
    done = gate(*more)
    assert done.code == 2
    assert words in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--candidate-url", "http://h"), "--baseline-url is not given"),
        (("--baseline-url", "http://h"), "--candidate-url is not given"),
        (("--tokenizer", "x"), "--tokenizer is for two deployments"),
        ((), "CHECKPOINT is missing. Type CHECKPOINT and --baseline"),
        (("folder",), "--baseline is missing"),
    ],
)
def test_half_a_comparison_is_refused(words: tuple[str, ...], said: str) -> None:
    done = typed("gate", *words)
    assert done.code == 2
    assert said in done.line()
