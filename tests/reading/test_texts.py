"""JSON, JSON lines and YAML of others, and what may be no file at all."""

import os
from pathlib import Path

import pytest

from harness.errors import ExitCode, ModelError, ReasonCode, UnreadableError
from harness.reading import (
    iter_json_lines,
    read_json_object,
    read_json_text,
    read_utf8,
    read_yaml_text,
    refused_as,
)

BAD_JSON = {
    "a byte order mark": b'\xef\xbb\xbf{"a": 1}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "UTF-32": '{"a": 1}'.encode("utf-32"),
    "no UTF-8": b'{"a": "\xff"}',
    "not JSON": b'{"a": 1',
    "key 'a' twice": b'{"b": {"a": 1, "a": 1}}',
    "64 levels": b"[" * 100_000 + b"]" * 100_000,
    "65 levels|64 levels": b'{"a": ' + b"[" * 66 + b"]" * 66 + b"}",
    "NaN as 'a'": b'{"a": NaN}',
    "Infinity as 'a'": b'{"a": Infinity}',
    "-Infinity": b"[-Infinity]",
    "Infinity, which": b"[1e999]",
    "whole number of more than 40 digits as 'a'": b'{"a": ' + b"9" * 400 + b"}",
    "number that is negative or too large": b'{"a": ' + b"9" * 5000 + b"}",
    "is a Git LFS pointer, not the file": b"version https://git-lfs.github.com/spec/v1\noid 0",
    "half of a surrogate": rb'{"a": "\ud800"}',
    "in a key, holds half of a surrogate": rb'{"\ud800": 1}',
    "holds no JSON object but a list": b"[1]",
}


@pytest.mark.parametrize("what", BAD_JSON)
def test_json_that_a_loader_could_stumble_over_is_refused_by_name(
    tmp_path: Path, what: str
) -> None:
    (tmp_path / "config.json").write_bytes(BAD_JSON[what])
    with pytest.raises(UnreadableError, match=what) as refused:
        read_json_object(tmp_path / "config.json")
    assert "\n" not in str(refused.value)


def test_real_values_are_read() -> None:
    text = (
        '{"model_max_length": 1000000000000000019884624838656, "a": [1.5, null, "\\ud83d\\ude00"]}'
    )
    assert read_json_text(text, "it") == {
        "model_max_length": 10**30 + 19884624838656,
        "a": [1.5, None, "😀"],
    }


def test_infinity_is_allowed_where_it_is_asked_for() -> None:
    assert read_json_text("[0.0, Infinity]", "it", infinity=True) == [0.0, float("inf")]
    with pytest.raises(UnreadableError, match="NaN"):
        read_json_text("[NaN]", "it", infinity=True)


def test_a_text_beyond_its_bound_is_refused() -> None:
    with pytest.raises(UnreadableError, match="the answer has 6 bytes, more than the 5"):
        read_json_text(b"[1, 2]", "the answer", most=5)


@pytest.mark.parametrize(
    "kind", ["FIFO", "folder", "device", "missing", "dangling", "loop", "long"]
)
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "config.json"
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "dangling":
        path.symlink_to("nothing")
    elif kind == "loop":
        path.symlink_to("config.json")
    elif kind == "long":
        path = tmp_path / ("a" * 5000)
    with pytest.raises(UnreadableError):
        read_json_object(path)


def test_a_room_says_it_in_its_own_class_with_what_to_do() -> None:
    with (
        pytest.raises(ModelError, match=r"twice\. Download it again\.") as refused,
        refused_as(ModelError, "Download it again."),
    ):
        read_json_text('{"a": 1, "a": 2}', "it")
    assert refused.value.reason is ReasonCode.BAD_MODEL
    assert refused.value.exit_code is ExitCode.USAGE


def test_separators_of_unicode_within_a_text_end_no_line(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes('{"text": "a\u2028b\u0085c"}\n{"text": "d"}\r\n   \n'.encode())
    assert [(line.number, line.value) for line in iter_json_lines(path)] == [
        (1, {"text": "a\u2028b\u0085c"}),
        (2, {"text": "d"}),
    ]


def test_a_mark_in_front_of_the_first_line_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbf[1]\n")
    assert [line.value for line in iter_json_lines(tmp_path / "a")] == [[1]]


@pytest.mark.parametrize(
    "line", [b"", b"  ", b"[", b"[" * 100_000, b"\xff", b"NaN", b"\xef\xbb\xbf[1]"]
)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "a").write_bytes(b"[1]\n" + line + b"\n[1]\n")
    with pytest.raises(UnreadableError, match=r"/a:2: the line"):
        list(iter_json_lines(tmp_path / "a"))


def test_a_line_without_an_end_is_refused_before_it_is_all_read(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UnreadableError, match="/a:1: the line has more than"):
        list(iter_json_lines(tmp_path / "a"))


BAD_YAML = {
    "key 'a' is given twice, in line 2": "a: 1\na: 2\n",
    "key 'b' is given twice": "a: [{b: 1, b: 1}]",
    "500000 values, aliases": "a0: &a0 [1, 1]\n"
    + "".join(f"a{i + 1}: &a{i + 1} [*a{i}, *a{i}]\n" for i in range(40)),
    "nested more than 64": "a: &a [*a]\n",
    "64 levels": "[" * 100_000,
    "64 levels deep": "".join(f"{' ' * i}a:\n" for i in range(70)),
    "does not fit its kind": "a: 2020-13-45\n",
    "kind: ": "a: !!float x\n",
    "Infinity as 'a'": "a: .inf\n",
    "NaN": "a: .nan\n",
    "40 digits": "a: " + "9" * 400 + "\n",
    "fit its kind": "a: " + "9" * 5000 + "\n",
    "is not YAML": "a: [1\nb: {",
    "could not determine a constructor": "a: !!python/object/apply:os.system [ls]\n",
    "unhashable|twice|YAML": "? {a: 1}\n: 1\n",
}


@pytest.mark.parametrize("what", BAD_YAML)
def test_yaml_that_could_mislead_or_blow_up_is_refused(what: str) -> None:
    with pytest.raises(UnreadableError, match=what) as refused:
        read_yaml_text(BAD_YAML[what], "'recipe.yaml'")
    assert "\n" not in str(refused.value)


def test_an_alias_stands_for_its_value() -> None:
    assert read_yaml_text("a: &x [1]\nb: *x\n", "it") == {"a": [1], "b": [1]}


def test_yaml_in_utf16_is_refused_by_name() -> None:
    with pytest.raises(UnreadableError, match="UTF-16"):
        read_yaml_text("a: 1".encode("utf-16"), "it")


def test_a_text_file_in_utf16_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("{{ x }}", encoding="utf-16")
    with pytest.raises(UnreadableError, match="UTF-16"):
        read_utf8(tmp_path / "chat_template.jinja")
