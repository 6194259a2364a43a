"""What a run takes from a prefetched folder, and what it refuses."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness import offline, shipped
from harness.artifacts import CalibrationSpec, to_json
from harness.calibrate.data import iter_texts
from harness.errors import DataError, HarnessError, ModelError, PrerequisiteError
from harness.models import digest_folder, open_source
from harness.offline import KeptFile, KeptModel, KeptTexts, Manifest
from harness.prefetching.rehearse import REACHING, refuse

NAME = "owner/bird"
SPEC = CalibrationSpec(data="wikitext", size=2, seq=16, seed=7, batch_tokens=None, layerwise=False)


def write(folder: Path, manifest: Manifest) -> None:
    text = json.dumps(to_json(manifest))
    (folder / offline.MANIFEST).write_text(text, encoding="utf-8")


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """A folder with a model and the first two texts of a set."""
    shutil.copytree(shipped.canary() / "model", tmp_path / "models/1")
    (tmp_path / "texts.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n', encoding="utf-8")
    digest = digest_folder(tmp_path / "models/1")
    texts = KeptTexts(data="wikitext", seed=7, file="texts.jsonl", num_texts=2, is_whole=False)
    file = tmp_path / "texts.jsonl"
    made = Manifest(
        version=offline.VERSION,
        harness="0",
        models=(KeptModel(name=NAME, revision=None, folder="models/1", digest=digest),),
        texts=(texts,),
        files=(KeptFile(path=file.name, num_bytes=32, sha256=offline.sha256_of(file)),),
        recipe="nvfp4",
        suite="nightly",
        suite_digest="ab",
        tasks=("gsm8k",),
        wheels=None,
        command="harness e2e",
    )
    write(tmp_path, made)
    return made


@pytest.fixture
def used(manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    del manifest
    monkeypatch.setenv(offline.VARIABLE, str(tmp_path))
    return tmp_path


def test_a_manifest_is_read_as_it_was_written(manifest: Manifest, tmp_path: Path) -> None:
    assert offline.read_manifest(tmp_path) == manifest


def test_a_model_is_found_by_the_name_that_was_typed(used: Path) -> None:
    source = open_source(NAME)
    assert (source.name, source.path) == (NAME, used / "models/1")


def test_another_revision_is_refused(used: Path) -> None:
    with pytest.raises(PrerequisiteError, match="at revision 'main', not 'v2'"):
        open_source(NAME, revision="v2")
    assert used.is_dir()


def test_a_model_that_was_exchanged_is_refused(used: Path) -> None:
    config = used / "models/1/config.json"
    config.write_text(config.read_text(encoding="utf-8") + " ", encoding="utf-8")
    with pytest.raises(ModelError, match=f"is not the '{NAME}' that was fetched"):
        open_source(NAME)


def test_texts_come_in_the_order_in_which_they_were_kept(used: Path) -> None:
    texts = iter_texts(SPEC)
    assert [next(texts).content, next(texts).content] == ["one", "two"]
    assert used.is_dir()


def test_more_texts_than_were_kept_are_no_smaller_calibration(used: Path) -> None:
    with pytest.raises(DataError, match="holds the first 2 texts of 'wikitext'"):
        list(iter_texts(SPEC))
    assert used.is_dir()


def test_all_texts_of_a_set_that_has_no_more_are_enough(manifest: Manifest, used: Path) -> None:
    write(used, replace(manifest, texts=(replace(manifest.texts[0], is_whole=True),)))
    assert len(list(iter_texts(SPEC))) == 2


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", 2),
        ("models", [{"name": "x"}]),
        ("files", [{"path": "../out", "num_bytes": 1, "sha256": ""}]),
        ("files", [{"path": "/etc/passwd", "num_bytes": 1, "sha256": ""}]),
        ("texts", 3),
        ("stranger", 1),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(
    manifest: Manifest, tmp_path: Path, key: str, value: object
) -> None:
    values = to_json(manifest)
    assert isinstance(values, dict)
    text = json.dumps(values | {key: value})
    (tmp_path / offline.MANIFEST).write_text(text, encoding="utf-8")
    with pytest.raises(PrerequisiteError, match="Fill it again"):
        offline.read_manifest(tmp_path)


def test_a_folder_without_a_manifest_is_none_of_prefetch(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match=r"holds no manifest\.json"):
        offline.read_manifest(tmp_path)


def test_a_file_that_is_cut_is_told_before_anything_runs(
    manifest: Manifest, tmp_path: Path
) -> None:
    del manifest
    (tmp_path / "texts.jsonl").write_text('{"text": "one"}\n', encoding="utf-8")
    with pytest.raises(HarnessError, match="has not the 32 bytes"):
        offline.use(tmp_path)


def test_a_file_with_other_contents_is_told_by_check(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text('{"text": "one"}\n{"text": "too"}\n', encoding="utf-8")
    with pytest.raises(PrerequisiteError, match="has not the contents that were fetched"):
        offline.check_bytes(tmp_path, manifest)


@pytest.mark.parametrize("event", REACHING)
def test_a_rehearsal_refuses_whatever_reaches_out(event: str) -> None:
    with pytest.raises(OSError, match="the network is not to be used"):
        refuse(event, (object(), ("10.0.0.1", 443)))


def test_what_is_no_connection_is_none_of_its_business() -> None:
    refuse("open", ("file", "r", 0))
