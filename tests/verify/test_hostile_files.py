"""What no loader opens, and what would never end, is a finding or one line; nothing else."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.artifacts import Check, Severity
from harness.errors import ModelError, ReasonCode, UnreadableError, UsageError
from harness.verify import check_template, verify
from tests.verify.test_verify import Make, failed

FIRST = "model-00001-of-00002.safetensors"
LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


def edit_header(file: Path, **change: object) -> None:
    """Give the first tensor of a file other header entries; the data stay as they are."""
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    first = min((n for n in header if n != "__metadata__"), key=lambda n: header[n]["data_offsets"])
    header[first] |= change
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


def found(folder: Path, check: str) -> Check:
    return failed(verify(folder))[check]


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [-1, -1]},
        {"shape": ["32", "16"]},
        {"shape": [32.0, 16]},
        {"dtype": "F13"},
        {"data_offsets": [8, 16]},
        {"data_offsets": [1, 0]},
        {"data_offsets": [False, True]},
        {"shape": [2**70]},
    ],
)
def test_a_header_that_safetensors_refuses_is_a_finding(
    checkpoint: Make, change: dict[str, object]
) -> None:
    folder = checkpoint().folder
    edit_header(folder / FIRST, **change)
    assert FIRST in found(folder, "shards-complete").message


def test_bytes_behind_the_last_tensor_are_a_finding(checkpoint: Make) -> None:
    folder = checkpoint().folder
    with (folder / FIRST).open("ab") as file:
        file.write(b"more")
    assert "4 bytes follow its last tensor" in found(folder, "shards-complete").message


KINDS = ["FIFO", "folder", "dangling link", "device", "link loop"]


def put_special(path: Path, kind: str) -> None:
    """Put something there that is no file."""
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"device": "/dev/zero", "link loop": path.name}.get(kind, "nothing"))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_in_the_place_of_weights_is_a_finding(checkpoint: Make, kind: str) -> None:
    folder = checkpoint().folder
    (folder / FIRST).unlink()
    put_special(folder / FIRST, kind)
    assert FIRST in found(folder, "shards-complete").message


@pytest.mark.parametrize("kind", [*KINDS, "a file that is no safetensors"])
def test_what_lies_beside_the_weights_under_such_a_name_is_a_warning(
    checkpoint: Make, kind: str
) -> None:
    folder = checkpoint().folder
    stray = folder / "consolidated.safetensors"
    if kind in KINDS:
        put_special(stray, kind)
    else:
        stray.write_bytes(b"pickled")
    faults = failed(verify(folder))
    assert list(faults) == ["weight-files-listed"]
    assert faults["weight-files-listed"].severity is Severity.WARNING
    assert stray.name in faults["weight-files-listed"].message


def test_a_link_that_leads_nowhere_is_named_with_what_it_leads_to(checkpoint: Make) -> None:
    folder = checkpoint().folder
    (folder / FIRST).unlink()
    (folder / FIRST).symlink_to("../../blobs/0123")
    message = found(folder, "shards-complete").message
    assert "is a link to ../../blobs/0123, which is not there" in message


@pytest.mark.parametrize("name", ["config.json", "hf_quant_config.json", "harness.json"])
@pytest.mark.parametrize(
    "content",
    [
        b'\xef\xbb\xbf{"a": 1}',
        '{"a": 1}'.encode("utf-16"),
        b"[" * 100_000,
        b"[]",
        b'{"a": NaN}',
        b'{"a": 1, "a": 2}',
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
)
def test_a_configuration_that_no_loader_reads_is_one_line(
    checkpoint: Make, name: str, content: bytes
) -> None:
    folder = checkpoint().folder
    (folder / name).write_bytes(content)
    with pytest.raises(ModelError, match=f"{name}' holds no JSON object") as refused:
        verify(folder)
    assert "\n" not in str(refused.value)


def test_an_infinite_limit_as_mamba_has_it_is_no_fault(checkpoint: Make) -> None:
    folder = checkpoint().folder
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "time_step_limit": [0, 1e999]}))
    assert not failed(verify(folder))


@pytest.mark.parametrize(
    "content", [b"[]", b'{"weight_map": []}', b'{"weight_map": {"a": 7}}', b"\xff", b"{}"]
)
def test_an_index_of_another_shape_is_a_finding(checkpoint: Make, content: bytes) -> None:
    folder = checkpoint().folder
    (folder / "model.safetensors.index.json").write_bytes(content)
    assert "index-matches-shards" in failed(verify(folder))


@pytest.mark.parametrize(
    "edit",
    [
        {"ignore": "lm_head"},
        {"ignore": {"lm_head": 1}},
        {"ignore": [1]},
        {"config_groups": []},
        {"kv_cache_scheme": [1]},
    ],
)
def test_another_form_than_engines_go_by_is_a_finding(
    checkpoint: Make, edit: dict[str, object]
) -> None:
    def change(section: dict[str, object]) -> None:
        section.update(edit)

    folder = checkpoint().configure(change, "config.json")
    message = found(folder, "quantization-declared").message
    assert next(iter(edit)) in message


@pytest.mark.parametrize("count", [10**7, 10**10, 2**70, -1])
def test_a_count_of_experts_is_not_believed_before_the_files(checkpoint: Make, count: int) -> None:
    folder = checkpoint().folder
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["num_experts"] = count
    (folder / "config.json").write_text(json.dumps(config))
    assert f"config.json names {count} experts" in found(folder, "experts-complete").message


@pytest.mark.usefixtures("short_limits")
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", b"\xef\xbb\xbf{}"),
        ("tokenizer_config.json", b"[]"),
        ("tokenizer.json", b"{"),
        ("generation_config.json", b'{"eos_token_id": NaN}'),
        ("generation_config.json", b"[" * 100_000),
        ("chat_template.jinja", "{{ messages }}".encode("utf-16")),
        ("chat_template.jinja", b"{{ 1 // 0 }}"),
        ("chat_template.jinja", b"{{"),
        ("chat_template.jinja", b"{% for i in range(10**9) %}{% endfor %}"),
        ("chat_template.jinja", b"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
        ("chat_template.jinja", LOOP.encode()),
        ("chat_template.jinja", b"{{ 'a' * 10000000000 }}"),
        ("tokenizer_config.json", b'{"chat_template": [[]]}'),
        ("tokenizer_config.json", b'{"chat_template": 7}'),
    ],
)
def test_a_file_beside_the_weights_that_no_loader_uses_is_a_finding(
    checkpoint: Make, name: str, content: bytes
) -> None:
    folder = checkpoint().folder
    (folder / name).write_bytes(content)
    check = found(folder, "sidecars-readable")
    assert name in str(check) or "chat template" in str(check)


def test_a_template_may_refuse_a_system_prompt(checkpoint: Make) -> None:
    folder = checkpoint().folder
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}hello"
    (folder / "chat_template.jinja").write_text(template)
    check_template("smoke", folder)
    assert not failed(verify(folder))


def test_a_model_without_a_template_cannot_be_asked_in_chats(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no chat template"):
        check_template("smoke", tmp_path)


@pytest.mark.usefixtures("short_limits")
def test_a_pattern_that_backtracks_without_end_is_one_line(checkpoint: Make) -> None:
    def change(section: dict[str, Any]) -> None:
        section["quant_method"] = "compressed-tensors"
        section["ignore"] = ["re:([a-z0-9._]+)*X$"]
        weights = {"type": "float", "num_bits": 8, "strategy": "tensor"}
        section["config_groups"] = {"group_0": {"weights": weights, "targets": ["Linear"]}}

    folder = checkpoint().configure(change, "config.json")
    with pytest.raises(UnreadableError, match=r"regular expression '\(\[a-z"):
        verify(folder)


@pytest.mark.parametrize(
    "hashes", [[], "x", {"../x": "0"}, {"/etc/passwd": "0"}, {"a" * 300: "0"}, {"a\0": "0"}]
)
def test_a_manifest_names_files_of_its_folder(checkpoint: Make, hashes: object) -> None:
    folder = checkpoint().folder
    (folder / "harness.json").write_text(json.dumps({"sha256": hashes}))
    with pytest.raises(ModelError, match="hashes of files of this folder"):
        verify(folder)


@pytest.mark.parametrize("dtype", ["U16", "I8", "F8_E5M2", "F8_E4M3FNUZ", "BOOL", "C64"])
@pytest.mark.parametrize("leaf", ["mlp.experts.0.gate_proj.weight_scale", "mlp.gate.weight"])
def test_types_that_hold_no_numbers_end_in_findings(
    checkpoint: Make, tmp_path: Path, dtype: str, leaf: str
) -> None:
    folder, source = checkpoint().folder, tmp_path / "source"
    source.mkdir()
    tensors = {n: t for shard in folder.glob("*.safetensors") for n, t in load_file(shard).items()}
    plain = {n: t.bfloat16() for n, t in tensors.items() if n.endswith("weight")}
    save_file(plain, source / "model.safetensors")
    (source / "config.json").write_text("{}")
    bits = {"U16": 16, "C64": 64}.get(dtype, 8)
    for shard in folder.glob("*.safetensors"):
        content = shard.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        for name, entry in header.items():
            if name.endswith(leaf):
                begin, end = entry["data_offsets"]
                entry |= {"dtype": dtype, "shape": [1, (end - begin) * 8 // bits]}
        text = json.dumps(header).encode()
        shard.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    assert failed(verify(folder, source=source))


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3", "F6_E3M2"])
def test_a_type_that_is_not_read_says_nothing_about_the_checkpoint(
    checkpoint: Make, dtype: str
) -> None:
    folder = checkpoint().folder
    save_file({"a.weight": torch.zeros(24, dtype=torch.uint8)}, folder / FIRST)
    edit_header(folder / FIRST, dtype=dtype, shape=[24 * 8 // int(dtype[1])])
    with pytest.raises(UsageError, match=f"as {dtype}, which is not read here") as refused:
        verify(folder)
    assert refused.value.reason is ReasonCode.UNSUPPORTED_FORMAT


def test_weights_that_cannot_be_read_are_not_called_unquantized(checkpoint: Make) -> None:
    folder = checkpoint().folder
    for shard in folder.glob("*.safetensors"):
        shard.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "quantized-layers-exist" not in failed(verify(folder))


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model", "merges.txt", "vocab.json"])
def test_a_pointer_of_git_lfs_beside_the_weights_is_a_finding(checkpoint: Make, name: str) -> None:
    folder = checkpoint().folder
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert f"{name} is a Git LFS pointer" in found(folder, "sidecars-readable").message
