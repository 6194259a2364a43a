"""Calibration data: what is read, in which order, and one clear line for what cannot be read."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest
import torch

from harness import shipped
from harness.artifacts import CalibrationSpec
from harness.calibrate import check_data, data_digest, samples
from harness.calibrate.data import Text, iter_texts
from harness.calibrate.samples import make_batches, measure_extent, read_samples
from harness.errors import DataError, ModelError
from harness.models import open_source


def _spec(data: Path | str, *, size: int = 8, seq: int = 16, seed: int = 0) -> CalibrationSpec:
    return CalibrationSpec(
        data=str(data), size=size, seq=seq, seed=seed, batch_tokens=64, layerwise=False
    )


def _write(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "is not JSON"),
        ("", "is not JSON"),
        ('"text"', "exactly one of"),
        ("{}", "exactly one of"),
        ('{"txt": "hello"}', "exactly one of"),
        ('{"text": "hello", "input_ids": [1]}', "exactly one of"),
        ('{"text": 3}', "no text or is empty"),
        ('{"text": "  "}', "no text or is empty"),
        ('{"input_ids": "1 2"}', "no list of whole numbers"),
        ('{"input_ids": []}', "no list of whole numbers"),
        ('{"input_ids": [1, 2.5]}', "no list of whole numbers"),
        ('{"input_ids": [true, false]}', "no list of whole numbers"),
        ('{"input_ids": [-1, 2]}', "no list of whole numbers"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "good"}\n' + line + '\n{"text": "good"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=f"data.jsonl:2: .*{why}"):
        check_data(_spec(path))


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").touch()
    with pytest.raises(DataError, match="is empty"):
        check_data(_spec(tmp_path / "data.jsonl"))


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read"):
        check_data(_spec(tmp_path / "data.jsonl"))


def test_an_unknown_set_is_refused_with_the_known_ones() -> None:
    with pytest.raises(DataError, match=r"no file and no known set.*default.*cnn_dailymail"):
        check_data(_spec("cnn_dailymale"))


def test_a_public_set_without_a_network_names_what_else_to_use() -> None:
    with pytest.raises(DataError, match=r"'wikitext' cannot be read.*`default` or a JSON lines"):
        check_data(_spec("wikitext"))


def test_a_public_set_gives_its_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"messages": [{"content": "question"}, {"content": f"answer {i}"}]} for i in range(9)]
    table = datasets.Dataset.from_list([*rows, {"messages": []}]).to_iterable_dataset()
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: table)
    texts = {text.content for text in iter_texts(_spec("ultrachat_200k"))}
    assert texts == {f"question\nanswer {i}" for i in range(9)}


def test_the_shipped_sets_are_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "canary", lambda: tmp_path)
    monkeypatch.setattr(shipped, "calibration", lambda: tmp_path)
    _write(tmp_path / "calibration.jsonl", {"text": "for the canary"})
    _write(tmp_path / "default.jsonl", {"text": "for all"})
    assert [t.content for t in iter_texts(_spec("canary"))] == ["for the canary"]
    assert [t.content for t in iter_texts(_spec("default"))] == ["for all"]


def test_a_shipped_set_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "canary", lambda: tmp_path)
    with pytest.raises(DataError, match=r"calibration\.jsonl' cannot be read"):
        check_data(_spec("canary"))


def test_the_digest_follows_the_contents(tmp_path: Path) -> None:
    path = _write(tmp_path / "data.jsonl", {"text": "one"})
    before = data_digest(_spec(path))
    assert data_digest(_spec(_write(tmp_path / "copy.jsonl", {"text": "one"}))) == before
    _write(path, {"text": "two"})
    assert data_digest(_spec(path)) != before
    assert data_digest(_spec("c4")) != data_digest(_spec("wikitext"))


def test_the_seed_orders_the_samples(tiny_qwen3: Path, tmp_path: Path) -> None:
    path = _write(tmp_path / "data.jsonl", *({"input_ids": [i, i + 1]} for i in range(20)))
    source = open_source(str(tiny_qwen3))
    first = read_samples(_spec(path), source)
    assert read_samples(_spec(path), source) == first
    assert read_samples(_spec(path, seed=1), source) != first
    assert len(first) == 8
    assert set(read_samples(_spec(path, size=99), source)) == {(i, i + 1) for i in range(20)}


def test_what_was_measured_is_read_again_only_if_it_changed(
    tiny_qwen3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[CalibrationSpec] = []

    def noting(spec: CalibrationSpec) -> Iterator[Text]:
        read.append(spec)
        return iter_texts(spec)

    monkeypatch.setattr(samples, "iter_texts", noting)
    path = _write(tmp_path / "data.jsonl", *({"input_ids": [i, i + 1]} for i in range(20)))
    source = open_source(str(tiny_qwen3))
    extent, first = measure_extent(_spec(path), source), read_samples(_spec(path), source)
    assert extent.num_samples == len(first) == 8
    assert len(read) == 1
    assert read_samples(_spec(path), source) == first  # nobody holds them meanwhile
    assert len(read) == 2
    measure_extent(_spec(path), source)
    _write(path, {"input_ids": [1, 2]})
    assert read_samples(_spec(path), source) == [(1, 2)]
    assert len(read) == 4
    without_digest = dataclasses.replace(source, digest="")
    measure_extent(_spec(path), without_digest)
    read_samples(_spec(path), without_digest)
    assert len(read) == 6


def test_texts_are_tokenized_by_the_model_and_cut(tiny_qwen3: Path, tmp_path: Path) -> None:
    path = _write(tmp_path / "data.jsonl", {"text": "aaaabbbb"}, {"input_ids": list(range(99))})
    found = read_samples(_spec(path, seq=6), open_source(str(tiny_qwen3)))
    assert sorted(len(sample) for sample in found) == [6, 6]
    assert tuple(range(6)) in found
    (text,) = (sample for sample in found if sample != tuple(range(6)))
    assert len(set(text[:4])) == len(set(text[4:])) == 1


def test_ids_beyond_the_vocabulary_are_refused_with_their_line(
    tiny_qwen3_5_moe: Path, tmp_path: Path
) -> None:
    path = _write(tmp_path / "data.jsonl", {"input_ids": [1, 271]}, {"input_ids": [1, 272]})
    with pytest.raises(DataError, match=r"data\.jsonl:2: token id 272 .* vocabulary of 272"):
        read_samples(_spec(path), open_source(str(tiny_qwen3_5_moe)))


def test_a_set_without_two_tokens_is_refused(tiny_qwen3: Path, tmp_path: Path) -> None:
    path = _write(tmp_path / "data.jsonl", {"text": "a"}, {"input_ids": [3]})
    with pytest.raises(DataError, match="no text of 2 tokens"):
        read_samples(_spec(path), open_source(str(tiny_qwen3)))


def test_ids_need_no_tokenizer_but_text_does(tiny_qwen3: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).symlink_to(tiny_qwen3 / name)
    source = open_source(str(folder))
    ids = _write(tmp_path / "ids.jsonl", {"input_ids": [1, 2, 3]})
    assert read_samples(_spec(ids), source) == [(1, 2, 3)]
    text = _write(tmp_path / "text.jsonl", {"text": "hello"})
    with pytest.raises(ModelError, match="no tokenizer"):
        read_samples(_spec(text), source)
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match=r"the tokenizer of .* cannot be loaded"):
        read_samples(_spec(text), source)


def test_a_batch_holds_samples_of_one_length_so_nothing_is_padded() -> None:
    samples = [tuple(range(n)) for n in (5, 3, 5, 9, 5, 3, 40)]
    batches = make_batches(samples, batch_tokens=10)
    assert [tuple(b.shape) for b in batches] == [(1, 40), (1, 9), (2, 5), (1, 5), (2, 3)]
    assert sorted(tuple(row) for b in batches for row in b.tolist()) == sorted(samples)
    assert all(b.dtype == torch.int64 for b in batches)
