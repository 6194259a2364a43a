"""Bundles: one file there and back, and every way in which a stranger's file can be wrong."""

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import baselines
from harness.artifacts import Scorecard, load, save
from harness.baselines import Kept, bundle
from tests.typed import typed

Keep = Callable[..., Kept]
Files = dict[str, bytes]


@pytest.fixture
def exported(keep: Keep, tmp_path: Path) -> Path:
    kept = keep()
    done = typed("baseline", "export", kept.key[:8], "--out", tmp_path / "canary.baseline")
    assert done.code == 0, done.err
    return tmp_path / "canary.baseline"


@pytest.fixture
def elsewhere(
    exported: Path, tiny_suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Another, empty store, as on another machine, beside a suite."""
    assert exported.exists()
    (tmp_path / "tiny.yaml").symlink_to(tiny_suite)
    monkeypatch.setenv("HARNESS_BASELINES", str(tmp_path / "elsewhere"))
    return tmp_path / "elsewhere"


def unpack(path: Path) -> Files:
    with tarfile.open(path, "r:gz") as tar:
        return {m.name: (tar.extractfile(m) or io.BytesIO()).read() for m in tar}


def pack(files: Files, path: Path, *, sealed: bool = False) -> None:
    """Write a bundle by hand; `sealed` writes hashes that fit what is in it."""
    if sealed:
        values = json.loads(files["bundle.json"])
        values["files"] = {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "num_bytes": len(data)}
            for name, data in files.items()
            if name != "bundle.json"
        }
        files = {**files, "bundle.json": json.dumps(values).encode()}
    names = ["bundle.json", *(name for name in files if name != "bundle.json")]
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(files[name])
            tar.addfile(member, io.BytesIO(files[name]))


def test_a_bundle_brings_every_answer_of_both_runs_to_another_store(
    exported: Path,
    elsewhere: Path,
) -> None:
    done = typed("baseline", "import", exported, "--json")
    assert done.code == 0, done.err
    (kept,) = baselines.kept_baselines()
    assert kept.folder.parent == elsewhere
    assert kept.entry.rerun is not None
    assert (kept.entry.num_items, kept.entry.rerun.num_flips) == (10, 2)
    names = {str(p.relative_to(kept.folder)) for p in kept.folder.rglob("*") if p.is_file()}
    arm = {"scorecard.json", "samples/add.jsonl"}
    assert names == {"entry.json", "entry.lock", *arm, *(f"again/{name}" for name in arm)}


def test_importing_twice_changes_nothing(
    exported: Path,
    elsewhere: Path,
) -> None:
    assert typed("baseline", "import", exported).out.startswith("imported")
    before = {p: p.stat().st_mtime_ns for p in elsewhere.rglob("*") if p.is_file()}
    done = typed("baseline", "import", exported)
    assert (done.code, done.out.split(":")[0]) == (0, "already there, left as it is")
    assert {p: p.stat().st_mtime_ns for p in elsewhere.rglob("*") if p.is_file()} == before


def test_the_same_baseline_is_the_same_file(keep: Keep, tmp_path: Path) -> None:
    kept = keep()
    first = baselines.export_baseline(kept, tmp_path / "1").read_bytes()
    assert baselines.export_baseline(kept, tmp_path / "2").read_bytes() == first


def test_a_damaged_entry_is_not_exported(keep: Keep, tmp_path: Path) -> None:
    kept = keep()
    with (kept.folder / "samples" / "add.jsonl").open("a") as file:
        file.write("\n")
    done = typed("baseline", "export", kept.key, "--out", tmp_path / "out")
    assert done.code == 2
    assert "is damaged" in done.line()
    assert not (tmp_path / "out").exists()


def test_an_unwritable_place_is_named(keep: Keep, tmp_path: Path) -> None:
    done = typed("baseline", "export", keep().key, "--out", tmp_path / "no" / "such" / "folder")
    assert done.code == 2
    assert "cannot be written" in done.line()


def refused(path: Path, elsewhere: Path, words: str) -> None:
    done = typed("baseline", "import", path)
    assert done.code == 2
    assert words in done.line()
    assert list(elsewhere.iterdir()) == []
    suite = elsewhere.parent / "tiny.yaml"
    gated = typed("gate", "no-such-checkpoint", "--baseline", path, "--suite", suite)
    assert gated.code == 2
    assert words in gated.err


def test_a_truncated_bundle(
    exported: Path,
    elsewhere: Path,
) -> None:
    exported.write_bytes(exported.read_bytes()[:-200])
    refused(exported, elsewhere, "is no whole bundle")


def test_any_flipped_byte_in_the_answers(
    exported: Path,
    elsewhere: Path,
) -> None:
    data = bytearray(gzip.decompress(exported.read_bytes()))
    data[data.index(b"question 5")] ^= 1
    exported.write_bytes(gzip.compress(bytes(data)))
    refused(exported, elsewhere, "is not what its sha256 says")


@pytest.mark.parametrize("content", [b"", b"hello", gzip.compress(b"hello", mtime=0)])
def test_a_file_that_is_no_bundle(exported: Path, elsewhere: Path, content: bytes) -> None:
    exported.write_bytes(content)
    refused(exported, elsewhere, "is no whole bundle")


@pytest.mark.parametrize("name", ["/etc/evil", "../evil", "samples/../../evil", ".hidden"])
def test_a_name_that_leads_elsewhere(exported: Path, elsewhere: Path, name: str) -> None:
    pack(unpack(exported) | {name: b"evil"}, exported, sealed=True)
    refused(exported, elsewhere, "is no plain file with a plain name")
    assert not (elsewhere.parent / "evil").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE])
def test_a_member_that_is_no_file(exported: Path, elsewhere: Path, kind: bytes) -> None:
    files = unpack(exported)
    with tarfile.open(exported, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("samples/link.jsonl")
        link.type, link.linkname = kind, "/etc/passwd"
        tar.addfile(link)
    refused(exported, elsewhere, "is no plain file")


def test_a_file_that_nobody_announced(
    exported: Path,
    elsewhere: Path,
) -> None:
    pack(unpack(exported) | {"extra.json": b"{}"}, exported)
    refused(exported, elsewhere, "'extra.json' is not announced")


def test_an_announced_file_that_is_missing(
    exported: Path,
    elsewhere: Path,
) -> None:
    files = unpack(exported)
    del files["again/samples/add.jsonl"]
    pack(files, exported)
    refused(exported, elsewhere, "'again/samples/add.jsonl' is announced and missing")


def test_more_than_a_baseline_can_take(
    exported: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "MAX_BYTES", 1000)
    refused(exported, elsewhere, "it announces")


def changed(files: Files, name: str, change: Callable[[Any], None]) -> Files:
    """Edit a file as somebody would who mends its own digest too."""
    values = json.loads(files[name])
    change(values)
    if values.pop("record_sha256", None):
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        values["record_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    return {**files, name: json.dumps(values).encode()}


FORGED: list[tuple[str, Callable[[Any], None], str]] = [
    ("bundle.json", lambda v: v.update(version=2), "version 2"),
    ("entry.json", lambda v: v["inputs"].update(suite_digest="0" * 64), "suite is 'bbbb"),
    ("entry.json", lambda v: v["inputs"].update(model_digest="0" * 64), "model is 'aaaa"),
    ("entry.json", lambda v: v["rerun"].update(num_flips=0), "differ in 2 items, not in 0"),
    ("entry.json", lambda v: v.update(rerun=None), "do not go together"),
    ("entry.json", lambda v: v.update(num_items=12), "10 items where 12 were scored"),
    ("entry.json", lambda v: v.pop("created"), "is no BaselineEntry"),
    ("scorecard.json", lambda v: v.update(arm="candidate"), "arm is 'candidate'"),
    (
        "scorecard.json",
        lambda v: v["tasks"][0].update(samples="../../../etc/passwd"),
        "not in samples/",
    ),
    ("again/scorecard.json", lambda v: v.update(lm_eval_version="9"), "lm-eval's version is '9'"),
]


@pytest.mark.parametrize(
    ("name", "change", "words"), FORGED, ids=lambda v: v[:30] if isinstance(v, str) else "changed"
)
def test_files_that_are_whole_and_contradict_each_other(
    exported: Path,
    elsewhere: Path,
    name: str,
    change: Callable[[Any], None],
    words: str,
) -> None:
    pack(changed(unpack(exported), name, change), exported, sealed=True)
    refused(exported, elsewhere, words)


@pytest.mark.parametrize("name", ["entry.json", "scorecard.json", "again/scorecard.json"])
def test_a_record_that_was_edited(exported: Path, elsewhere: Path, name: str) -> None:
    files = unpack(exported)
    files[name] = (
        files[name].replace(b'"canary"', b'"other"').replace(b'"value": 0.8', b'"value": 1')
    )
    files[name] = files[name].replace(b'"value": 1.0', b'"value": 0.9')
    pack(files, exported, sealed=True)
    refused(exported, elsewhere, "was changed after harness wrote it")


@pytest.mark.parametrize("content", [b"", b"5", b"[" * 100_000, b"\xff\xfe"])
def test_an_entry_that_is_no_json_of_one(exported: Path, elsewhere: Path, content: bytes) -> None:
    pack(unpack(exported) | {"entry.json": content}, exported, sealed=True)
    refused(exported, elsewhere, "is damaged")


def test_a_bundle_that_is_not_there(store: Path, tmp_path: Path) -> None:
    done = typed("baseline", "import", tmp_path / "none")
    assert done.code == 2
    assert "No such file" in done.line()
    assert list(store.iterdir()) == []


def test_scores_of_a_run_without_a_second_run_can_be_shared_too(
    keep: Keep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an older version left them; the list says that they were run once."""
    kept = keep()
    for path in sorted((kept.folder / "again").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (kept.folder / "again").rmdir()
    save(replace(kept.entry, rerun=None), kept.folder / "entry.json")
    out = baselines.export_baseline(baselines.find_baseline(kept.key), tmp_path / "out")
    monkeypatch.setenv("HARNESS_BASELINES", str(tmp_path / "elsewhere"))
    found, is_new = baselines.import_baseline(out)
    assert (is_new, found.entry.rerun) == (True, None)
    assert load(Scorecard, found.folder / "scorecard.json").arm == "baseline"


def test_a_name_of_a_gigabyte_is_refused_before_it_is_read(
    exported: Path,
    elsewhere: Path,
) -> None:
    files = unpack(exported)
    member = tarfile.TarInfo("bundle.json")
    member.size = len(files["bundle.json"])
    long_name = tarfile.TarInfo("././@LongLink")
    long_name.type, long_name.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    with gzip.open(exported, "wb", compresslevel=1) as out:
        out.write(member.tobuf() + files["bundle.json"])
        out.write(b"\0" * (-member.size % 512) + long_name.tobuf() + b"a" * (16 << 20))
    done = typed("baseline", "import", exported)
    assert done.code == 2
    assert "has 1073741824 bytes" in done.err
    assert not list(elsewhere.glob("*/entry.json"))


def test_a_bundle_that_is_a_fifo(
    exported: Path,
    elsewhere: Path,
) -> None:
    exported.unlink()
    os.mkfifo(exported)
    assert typed("baseline", "import", exported).code == 2
    assert not elsewhere.exists() or not list(elsewhere.glob("*/entry.json"))
