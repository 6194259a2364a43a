"""What is published is what was judged, byte for byte, in one commit; or nothing is."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml
from huggingface_hub import (
    CommitOperationAdd,
    ModelCard,
    _commit_api,
    constants,
    parse_eval_result_entries,
)

from harness.artifacts import SignOff
from harness.errors import EvidenceError, UploadError, UsageError
from harness.signoff import Publication, Signer, publish, sign_off
from harness.signoff.publishing import Published
from harness.signoff.upload import Hub, Upload
from tests.signoff.conftest import Run, recipe
from tests.signoff.hub import TOKEN, State, hub
from tests.typed import Done, typed

REPO = "org/small-nvfp4"
# huggingface_hub 2.4 sends objects of LFS in a way that its own HTTP client calls outdated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[State]:
    """A Hub without Xet, which no server of a test can speak; somebody is logged in."""
    monkeypatch.setattr(_commit_api, "is_xet_available", lambda: False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # as all tests are
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with hub() as state:
        monkeypatch.setenv("HF_ENDPOINT", state.url)
        yield state


@pytest.fixture
def bundle(made: Run, tmp_path: Path) -> Path:
    assert isinstance(sign_off(made.path, tmp_path / "bundle", Signer()), SignOff)
    return tmp_path / "bundle"


def put(run: Run, bundle: Path | None = None) -> Published:
    done = publish(run.path, Publication(repo=REPO, bundle=bundle))
    assert isinstance(done, Published), done
    return done


def judged(run: Run) -> dict[str, bytes]:
    files = (path for path in run.checkpoint.rglob("*") if path.is_file())
    return {
        path.relative_to(run.checkpoint).as_posix(): path.read_bytes()
        for path in files
        if path.name != "harness.json"
    }


def test_the_judged_files_card_and_results_are_published_and_nothing_else(
    made: Run, server: State, bundle: Path
) -> None:
    put(made, bundle)
    found = dict(server.repos[REPO])
    expected = judged(made) | {
        "README.md": (bundle / "README.md").read_bytes(),
        ".eval_results/tiny.yaml": (bundle / ".eval_results" / "tiny.yaml").read_bytes(),
        ".gitattributes": b"",
    }
    assert found == expected
    assert len(server.commits) == 1


def test_large_files_go_by_their_sha256(made: Run, server: State, bundle: Path) -> None:
    put(made, bundle)
    weights = (made.checkpoint / "model.safetensors").read_bytes()
    assert list(server.objects.values()) == [weights]


def test_a_go_may_be_published_without_a_bundle_and_its_card_says_so(
    made: Run, server: State
) -> None:
    put(made)
    files = server.repos[REPO]
    card = ModelCard(files["README.md"].decode())
    assert "not signed off" in card.text
    (entry,) = parse_eval_result_entries(yaml.safe_load(files[".eval_results/tiny.yaml"]))
    assert entry.value == 1.0


def test_published_twice_it_is_the_same(made: Run, server: State, bundle: Path) -> None:
    put(made, bundle)
    before = dict(server.repos[REPO])
    put(made, bundle)
    assert server.repos[REPO] == before


@pytest.mark.parametrize(("lost", "code"), [(200, 4), (15, 5)])
def test_what_is_not_go_is_not_published(
    tmp_path: Path, server: State, lost: int, code: int
) -> None:
    run = Run(tmp_path / "run", recipe()).make(lost=lost)
    done = typed("publish", run.path, "--repo", REPO)
    assert done.code == code
    assert server.requests == []


def test_changed_bytes_are_not_published(run: Run, server: State) -> None:
    (run.checkpoint / "config.json").write_text("{}")
    assert typed("publish", run.path, "--repo", REPO).code == 2
    assert server.requests == []


def test_a_bundle_of_another_checkpoint_is_refused(tmp_path: Path, run: Run, server: State) -> None:
    other = Run(tmp_path / "other", recipe())
    other.make()
    bundle = tmp_path / "bundle"
    sign_off(other.path, bundle, Signer())
    shutil.rmtree(bundle / "evidence")
    found = publish(run.path, Publication(repo=REPO, bundle=bundle))
    assert isinstance(found, tuple)
    assert server.requests == []


def test_a_file_that_changes_while_it_is_uploaded_is_not_committed(
    run: Run, server: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.signoff.publishing._IN_MEMORY_BYTES", 0)
    sending = Hub.send

    def send(self: Hub, uploads: Sequence[Upload]) -> list[CommitOperationAdd]:
        (run.checkpoint / "model.safetensors").write_bytes(b"other weights")
        return sending(self, uploads)

    monkeypatch.setattr("harness.signoff.upload.Hub.send", send)
    with pytest.raises(EvidenceError, match=r"model\.safetensors' is not the file"):
        put(run)
    assert server.commits == []


def test_a_file_that_is_put_back_after_the_upload_is_not_committed(
    run: Run, server: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    sending = Hub.send

    def send(self: Hub, uploads: Sequence[Upload]) -> list[CommitOperationAdd]:
        done = sending(self, uploads)
        path = run.checkpoint / "model.safetensors"
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
        return done

    monkeypatch.setattr("harness.signoff.upload.Hub.send", send)
    with pytest.raises(EvidenceError, match="were touched"):
        put(run)
    assert server.commits == []


def test_a_repository_with_other_files_is_refused(made: Run, server: State) -> None:
    server.repos[REPO] = {"model-00002-of-00002.safetensors": b"old"}
    with pytest.raises(UsageError, match="model-00002-of-00002"):
        put(made)
    assert server.commits == []


def test_a_file_that_the_hub_leaves_out_is_told(made: Run, server: State) -> None:
    server.ignored = ("tokenizer.json",)
    with pytest.raises(UploadError, match=r"left out files .*tokenizer\.json"):
        put(made)


def test_who_may_not_write_is_told_how_to_log_in(
    made: Run, server: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert server.url
    with pytest.raises(UsageError, match="hf auth login"):
        put(made)


def refused(made: Run, *words: object) -> Done:
    return typed("publish", made.path, "--repo", REPO, *words)


def test_no_token_is_ever_printed(made: Run, server: State) -> None:
    server.refuse_commit = 418
    done = refused(made, "--json")
    assert done.code == 3
    assert "status 418" in done.line()
    assert TOKEN not in done.out + done.err


def test_a_hub_that_is_not_there_is_told_without_its_address(
    made: Run, server: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server.url
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9/?secret=1")
    done = refused(made)
    assert done.code == 3
    assert "secret" not in done.out + done.err


def test_what_is_no_repository_is_refused(made: Run, server: State) -> None:
    done = typed("publish", made.path, "--repo", "no//name")
    assert done.code == 2
    assert "OWNER/NAME" in done.line()
    assert server.commits == []


def test_the_command_names_the_commit(made: Run, server: State, bundle: Path) -> None:
    done = typed("publish", made.path, "--repo", REPO, "--bundle", bundle, "--json")
    assert done.code == 0, done.err
    assert done.json["commit"].startswith(f"{server.url}/{REPO}/commit/")
    assert sorted(done.json["files"]) == sorted({*server.repos[REPO]} - {".gitattributes"})
