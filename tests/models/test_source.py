"""Opening a model: what is a checkpoint, and one clear line for everything that is not."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from harness.errors import ModelError, ReasonCode
from harness.models import digests, open_source

INDEX = "model.safetensors.index.json"


@pytest.fixture
def copy(tiny_qwen3: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_qwen3, tmp_path / "model"))


@pytest.fixture
def sharded(tiny_mixtral_sharded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_mixtral_sharded, tmp_path / "sharded"))


def _edit_header(file: Path, change: dict[str, object]) -> None:
    """Give the first tensor of a file other header entries; the data stay as they are."""
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    first = min((n for n in header if n != "__metadata__"), key=lambda n: header[n]["data_offsets"])
    header[first] |= change
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


def test_every_tensor_of_one_file_is_listed_as_it_is(tiny_qwen3: Path) -> None:
    source = open_source(str(tiny_qwen3))
    expected = load_file(tiny_qwen3 / "model.safetensors")
    assert {n: h.shape for n, h in source.tensors.items()} == {
        n: tuple(t.shape) for n, t in expected.items()
    }
    assert all(h.dtype == "BF16" for h in source.tensors.values())
    assert source.config["model_type"] == "qwen3"
    assert source.path == tiny_qwen3


def test_every_shard_is_read(tiny_mixtral: Path, tiny_mixtral_sharded: Path) -> None:
    one, many = open_source(str(tiny_mixtral)), open_source(str(tiny_mixtral_sharded))
    assert len({h.shard for h in many.tensors.values()}) > 1
    assert {n: h.shape for n, h in one.tensors.items()} == {
        n: h.shape for n, h in many.tensors.items()
    }


@pytest.mark.parametrize("name", ["no-such-model", "./nowhere/at/all", "../owner/name", "a b/c"])
def test_a_name_that_is_no_folder_and_no_hub_id_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match="no folder and no Hub id"):
        open_source(name)


def test_a_hub_id_without_a_network_says_so() -> None:
    with pytest.raises(ModelError, match="the Hub cannot be reached"):
        open_source("harness-tests/not-cached")


def test_a_hub_id_gives_the_files_of_its_revision(
    tiny_qwen3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}

    def download(hub_id: str, **options: object) -> str:
        asked.update(options, hub_id=hub_id)
        return str(tiny_qwen3)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    source = open_source("owner/name", revision="abc")
    assert (asked["hub_id"], asked["revision"]) == ("owner/name", "abc")
    assert source.name == "owner/name"
    assert source.path == tiny_qwen3


def test_an_error_of_the_hub_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(hub_id: str, **_: object) -> str:
        message = f"{hub_id}\nmany\nlines"
        raise LocalEntryNotFoundError(message)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelError) as caught:
        open_source("owner/name")
    assert "\n" not in str(caught.value)


def test_a_file_is_no_model(tiny_qwen3: Path) -> None:
    with pytest.raises(ModelError, match="is a file"):
        open_source(str(tiny_qwen3 / "config.json"))


def test_a_folder_without_config_is_refused(copy: Path) -> None:
    (copy / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        open_source(str(copy))


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"model_type": 3}'])
def test_a_config_that_names_no_model_type_is_refused(copy: Path, text: str) -> None:
    (copy / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=r"config\.json"):
        open_source(str(copy))


def test_a_folder_without_weights_is_refused(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="has no weights"):
        open_source(str(copy))


def test_pickled_weights_are_never_read(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match="only pickled weights"):
        open_source(str(copy))


def test_shards_without_an_index_are_refused(sharded: Path) -> None:
    (sharded / INDEX).unlink()
    with pytest.raises(ModelError, match="neither"):
        open_source(str(sharded))


def test_an_index_that_names_a_missing_shard_is_refused(sharded: Path) -> None:
    next(sharded.glob("*.safetensors")).unlink()
    with pytest.raises(ModelError, match="is missing"):
        open_source(str(sharded))


def test_an_index_that_points_outside_the_folder_is_refused(sharded: Path) -> None:
    index = {"weight_map": {"x": "../model.safetensors"}}
    (sharded / INDEX).write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ModelError, match="no file beside it"):
        open_source(str(sharded))


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": []}'])
def test_a_broken_index_is_refused(sharded: Path, text: str) -> None:
    (sharded / INDEX).write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=INDEX):
        open_source(str(sharded))


def test_an_index_that_contradicts_its_shards_is_refused(sharded: Path) -> None:
    index = json.loads((sharded / INDEX).read_bytes())
    index["weight_map"]["made.up"] = next(iter(index["weight_map"].values()))
    (sharded / INDEX).write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ModelError, match=r"'made\.up'; it does not"):
        open_source(str(sharded))


def test_an_index_that_leaves_a_tensor_out_is_refused(sharded: Path) -> None:
    index = json.loads((sharded / INDEX).read_bytes())
    del index["weight_map"]["model.norm.weight"]
    (sharded / INDEX).write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ModelError, match=r"leaves out 1 tensor.*model\.norm\.weight"):
        open_source(str(sharded))


@pytest.mark.parametrize("num_bytes", [0, 5, 100, -1])
def test_a_truncated_file_is_found_from_its_header(copy: Path, num_bytes: int) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:num_bytes])
    with pytest.raises(ModelError, match=r"ends \d+ bytes early") as caught:
        open_source(str(copy))
    assert caught.value.reason is ReasonCode.TRUNCATED_FILE


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"shape": [1, 1]}, "do not fit its shape"),
        ({"shape": "wide"}, "header cannot be read"),
        ({"data_offsets": [16, 32]}, "do not fit its shape"),
        ({"data_offsets": [0]}, "header cannot be read"),
        ({"dtype": "F13"}, "unknown dtype 'F13'"),
    ],
)
def test_a_header_that_lies_is_refused(copy: Path, change: dict[str, object], why: str) -> None:
    _edit_header(copy / "model.safetensors", change)
    with pytest.raises(ModelError, match=why):
        open_source(str(copy))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\x80\x02}q\x00(X\x05more than eight bytes of pickle", "length makes no sense"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        ((2).to_bytes(8, "little") + b"[]", "header cannot be read"),
        ((2).to_bytes(8, "little") + b"{}" + b"more", "follow its last tensor"),
    ],
)
def test_a_file_that_is_no_safetensors_file_is_refused(
    copy: Path, content: bytes, why: str
) -> None:
    (copy / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=why):
        open_source(str(copy))


def test_the_digest_depends_on_contents_alone(copy: Path, tiny_qwen3: Path) -> None:
    digest = open_source(str(tiny_qwen3)).digest
    assert open_source(str(copy)).digest == digest
    tensors = load_file(copy / "model.safetensors")
    tensors["model.norm.weight"][0] += 1
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    assert open_source(str(copy)).digest != digest


def test_the_digest_depends_on_the_configuration(copy: Path) -> None:
    digest = open_source(str(copy)).digest
    config = json.loads((copy / "config.json").read_bytes())
    (copy / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    assert open_source(str(copy)).digest != digest


@pytest.fixture
def settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files count as settled that were just written, and no hash be known yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "SETTLED_NS", 0)
    monkeypatch.setattr(digests, "_hashed_here", {})


@pytest.mark.usefixtures("settled")
def test_a_file_is_hashed_once(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = open_source(str(copy)).digest
    monkeypatch.setattr(digests, "_hashed_here", {})
    monkeypatch.delattr(hashlib, "file_digest")
    assert open_source(str(copy)).digest == digest


@pytest.mark.usefixtures("settled")
def test_a_file_that_was_rewritten_in_place_with_its_times_kept_is_hashed_again(
    copy: Path,
) -> None:
    digest = open_source(str(copy)).digest
    file = copy / "model.safetensors"
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    with file.open("r+b") as opened:
        opened.write(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert open_source(str(copy)).digest != digest


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("by", ["another user", "another process"])
def test_whose_hash_is_believed(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """None that others may have written; for the paranoid none but this process's own."""
    digest = open_source(str(copy)).digest
    monkeypatch.setattr(digests, "_hashed_here", {})
    for entry in (tmp_path / "cache" / "harness" / "digests").iterdir():
        entry.write_text('"' + "0" * 64 + '"')
        if by == "another user":
            entry.chmod(0o666)
    if by == "another process":
        assert open_source(str(copy)).digest != digest
        monkeypatch.setattr(digests, "_hashed_here", {})
        monkeypatch.setenv("HARNESS_PARANOID", "1")
    assert open_source(str(copy)).digest == digest


def test_a_file_that_changed_just_now_is_not_remembered(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (copy / "config.json").touch()
    open_source(str(copy))
    state = digests.state_of((copy / "config.json").stat())  # what is remembered by
    assert state not in digests._hashed_here  # noqa: SLF001


def test_a_cache_that_cannot_be_written_is_no_error(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))
    assert len(open_source(str(copy)).digest) == 64


def test_a_tensor_without_elements_is_no_error(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors") | {"empty": torch.zeros(0, 4)}
    save_file(tensors, copy / "model.safetensors")
    assert open_source(str(copy)).tensors["empty"].shape == (0, 4)


@pytest.mark.parametrize("kind", ["FIFO", "folder", "dangling link", "device"])
def test_what_is_no_file_but_named_like_weights_is_refused(copy: Path, kind: str) -> None:
    path = copy / "model.safetensors"
    path.unlink()
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else "nothing")
    with pytest.raises(ModelError, match=r"model\.safetensors' (is|cannot be read)"):
        open_source(str(copy))


@pytest.mark.parametrize("shard", ["..", ".", "", "/etc/passwd", "a\0", "a" * 300, 7, ["a"]])
def test_an_index_may_only_name_weight_files_beside_it(sharded: Path, shard: object) -> None:
    (sharded / INDEX).write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(ModelError, match="which is no file beside it"):
        open_source(str(sharded))


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b'\xef\xbb\xbf{"model_type": "qwen3"}', '{"a": 1}'.encode("utf-16"), b"{}"],
)
def test_a_configuration_that_no_loader_reads_is_refused(copy: Path, content: bytes) -> None:
    (copy / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"config\.json'"):
        open_source(str(copy))


@pytest.mark.parametrize("count", [10**7, 10**10, 2**70, -5])
@pytest.mark.parametrize("key", ["num_hidden_layers", "num_experts", "num_labels", "depth"])
def test_a_count_is_not_believed_before_the_files(copy: Path, key: str, count: int) -> None:
    config = json.loads((copy / "config.json").read_bytes())
    (copy / "config.json").write_text(json.dumps({**config, "vision_config": {key: count}}))
    with pytest.raises(ModelError, match=rf"'{key}': {count}, and the weight files have"):
        open_source(str(copy))


def test_a_tensor_in_two_files_is_refused(sharded: Path) -> None:
    index = json.loads((sharded / INDEX).read_bytes())
    first, second = sorted(set(index["weight_map"].values()))[:2]
    name, tensor = next(iter(load_file(sharded / first).items()))
    save_file(load_file(sharded / second) | {name: tensor}, sharded / second)
    with pytest.raises(ModelError, match=f"holds '{name}' twice"):
        open_source(str(sharded))
