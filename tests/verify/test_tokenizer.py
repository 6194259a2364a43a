"""Tokenizer settings beside those of the source, and token ids beside the embedding."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness import shipped
from harness.artifacts import Check, Severity
from harness.verify import verify
from tests.verify.test_verify import failed

Edit = Callable[[dict[str, Any]], object]
CONFIG, MAP, WHOLE = "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json"
CHECK = "tokenizer-matches-source"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A model's folder with the tokenizer of the canary, and tiny weights."""
    folder = tmp_path / "source"
    folder.mkdir()
    for name in (CONFIG, WHOLE, "generation_config.json", "chat_template.jinja"):
        shutil.copy(shipped.canary() / "model" / name, folder)
    tensors = {"model.embed_tokens.weight": torch.ones(320, 8).bfloat16()}
    save_file(tensors, folder / "model.safetensors")
    config = {"vocab_size": 320, "eos_token_id": 258, "text_config": {"pad_token_id": 256}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def copy(source: Path) -> Path:
    return Path(shutil.copytree(source, source.with_name("checkpoint")))


def edit(path: Path, change: Edit) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    change(content)
    path.write_text(json.dumps(content))


def against(source: Path, checkpoint: Path) -> Check | None:
    return failed(verify(checkpoint, source=source)).get(CHECK)


CHANGES: dict[str, tuple[str, Edit, str]] = {
    "another class": (
        CONFIG,
        lambda c: c.update(tokenizer_class="LlamaTokenizerFast"),
        "tokenizer_class is 'LlamaTokenizer' and was 'Qwen2Tokenizer'",
    ),
    "another end of text": (
        CONFIG,
        lambda c: c.update({"eos_token": "<|endoftext|>"}),
        "eos_token is '<|endoftext|>' in tokenizer_config.json and was '<|im_end|>'",
    ),
    "an end of text as an object": (
        CONFIG,
        lambda c: c.update(eos_token={"content": "<|endoftext|>", "special": True}),
        "eos_token is '<|endoftext|>'",
    ),
    "no end of text": (CONFIG, lambda c: c.pop("eos_token"), "eos_token is gone"),
    "a beginning where there was none": (
        CONFIG,
        lambda c: c.update({"bos_token": "<|endoftext|>"}),
        "bos_token is '<|endoftext|>' in tokenizer_config.json and was not set",
    ),
    "other filling": (CONFIG, lambda c: c.update({"pad_token": "<|im_end|>"}), "pad_token is"),
    "a map that says otherwise": (
        MAP,
        lambda c: c.update({"eos_token": "<|endoftext|>"}),
        "eos_token is '<|endoftext|>' in special_tokens_map.json",
    ),
    "a token in front of each text": (
        CONFIG,
        lambda c: c.update(add_bos_token=True),
        "add_bos_token is True and was False",
    ),
    "a token behind each text": (
        CONFIG,
        lambda c: c.update(add_eos_token=True),
        "add_eos_token is True and was not set",
    ),
    "a space in front of each text": (
        CONFIG,
        lambda c: c.update(add_prefix_space=True),
        "add_prefix_space is True and was False",
    ),
    "an added token": (
        CONFIG,
        lambda c: c["added_tokens_decoder"].update({"263": {"content": "<tool>"}}),
        "the token 263, '<tool>', was added",
    ),
    "another added token": (
        CONFIG,
        lambda c: c["added_tokens_decoder"]["257"].update(content="<start>"),
        "the added token 257 is '<start>', special and was '<|im_start|>', special",
    ),
    "a token that is no longer special": (
        CONFIG,
        lambda c: c["added_tokens_decoder"]["257"].update(special=False),
        "the added token 257 is '<|im_start|>' and was '<|im_start|>', special",
    ),
    "an added token in a file of its own": (
        "added_tokens.json",
        lambda c: c.update({"<tool>": 263}),
        "the token 263, '<tool>', was added",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_setting_of_the_tokenizer_is_an_error(
    source: Path, copy: Path, change: str
) -> None:
    file, how, line = CHANGES[change]
    edit(copy / file, how)
    fault = against(source, copy)
    assert fault is not None
    assert fault.severity is Severity.ERROR
    assert line in fault.message


def test_lost_settings_are_an_error(source: Path, copy: Path) -> None:
    (copy / CONFIG).unlink()
    fault = against(source, copy)
    assert fault is not None
    assert "tokenizer_config.json is missing" in fault.message


def test_a_lost_added_token_is_an_error(source: Path, copy: Path) -> None:
    edit(copy / CONFIG, lambda c: c["added_tokens_decoder"].pop("262"))
    edit(copy / WHOLE, lambda c: c["added_tokens"].pop())
    fault = against(source, copy)
    assert fault is not None
    assert "the added token 262, '<|video_pad|>', is gone" in fault.message


def test_a_chat_template_where_no_tokenizer_reads_it_is_an_error(source: Path, copy: Path) -> None:
    text = (copy / "chat_template.jinja").read_text()
    (copy / "chat_template.jinja").unlink()
    (copy / "chat_template.json").write_text(json.dumps({"chat_template": text}))
    fault = against(source, copy)
    assert fault is not None
    assert fault.severity is Severity.ERROR
    assert "in chat_template.json alone" in fault.message


@pytest.mark.parametrize("is_gone", [True, False])
def test_the_same_chat_template_in_the_settings_is_no_fault(
    source: Path, copy: Path, *, is_gone: bool
) -> None:
    text = (copy / "chat_template.jinja").read_text()
    edit(copy / CONFIG, lambda c: c.update(chat_template=text))
    if is_gone:
        (copy / "chat_template.jinja").unlink()
    assert against(source, copy) is None


ENDINGS: dict[str, tuple[str, Edit]] = {
    "lost from config.json": ("config.json", lambda c: c.pop("eos_token_id")),
    "another in a new generation_config.json": (
        "generation_config.json",
        lambda c: c.update(eos_token_id=3),
    ),
}


@pytest.mark.parametrize("change", ENDINGS)
def test_the_end_of_a_text_that_config_json_alone_names_is_compared(
    source: Path, copy: Path, change: str
) -> None:
    for folder in (source, copy):
        (folder / "generation_config.json").unlink()
    assert against(source, copy) is None
    file, how = ENDINGS[change]
    edit(copy / file, how)
    fault = against(source, copy)
    assert fault is not None
    assert "was 258 in config.json" in fault.message


MAYBE: dict[str, Edit] = {
    "two chat templates that differ": lambda c: c.update(chat_template="{{ messages }}"),
    "the class that reads any tokenizer.json": lambda c: c.update(
        tokenizer_class="PreTrainedTokenizerFast"
    ),
    "filling where there was none": lambda c: c.update({"mask_token": "<|endoftext|>"}),
    "more tokens that answers leave out": lambda c: c.update(extra_special_tokens=["<|im_start|>"]),
}


@pytest.mark.parametrize("change", MAYBE)
def test_what_may_be_a_respelling_is_a_warning(source: Path, copy: Path, change: str) -> None:
    edit(copy / CONFIG, MAYBE[change])
    fault = against(source, copy)
    assert fault is not None
    assert fault.severity is Severity.WARNING


RESPELLED: dict[str, Edit] = {
    "the fast class": lambda c: c.update(tokenizer_class="Qwen2TokenizerFast"),
    "tokens as objects": lambda c: c.update(eos_token={"content": "<|im_end|>"}),
    "settings that change no token": lambda c: c.update(padding_side="left", backend="tokenizers"),
    "added tokens in tokenizer.json alone": lambda c: c.pop("added_tokens_decoder"),
    "a setting left out that was off": lambda c: c.pop("add_bos_token"),
}


@pytest.mark.parametrize("change", RESPELLED)
def test_a_respelling_of_the_same_is_none(source: Path, copy: Path, change: str) -> None:
    edit(copy / CONFIG, RESPELLED[change])
    assert against(source, copy) is None


def test_a_tokenizer_saved_again_by_transformers_is_the_same(source: Path, copy: Path) -> None:
    from transformers import AutoTokenizer  # noqa: PLC0415 -- takes seconds

    AutoTokenizer.from_pretrained(source).save_pretrained(copy)
    fault = against(source, copy)
    assert fault is None or fault.severity is Severity.WARNING


BEYOND: dict[str, tuple[str, Edit]] = {
    "eos_token_id in config.json": ("config.json", lambda c: c.update(eos_token_id=320)),
    "pad_token_id in text_config of config.json": (
        "config.json",
        lambda c: c["text_config"].update(pad_token_id=320),
    ),
    "eos_token_id in generation_config.json": (
        "generation_config.json",
        lambda c: c.update(eos_token_id=[258, 320]),
    ),
    "suppress_tokens in generation_config.json": (
        "generation_config.json",
        lambda c: c.update(suppress_tokens=[320]),
    ),
    "tokenizer.json": (WHOLE, lambda c: c["model"]["vocab"].update(new=320)),
    "tokenizer_config.json": (
        CONFIG,
        lambda c: c["added_tokens_decoder"].update({"320": {"content": "<new>"}}),
    ),
    "added_tokens.json": ("added_tokens.json", lambda c: c.update({"<new>": 320})),
    "vocab.json": ("vocab.json", lambda c: c.update(new=320)),
}


@pytest.mark.parametrize("place", BEYOND)
def test_a_token_beyond_the_embedding_is_an_error_without_a_source(copy: Path, place: str) -> None:
    file, how = BEYOND[place]
    edit(copy / file, how)
    fault = failed(verify(copy))["token-ids-in-embedding"]
    assert fault.severity is Severity.ERROR
    assert (
        f"{place} has the token id 320, and model.embed_tokens.weight has 320 rows" in fault.message
    )


def test_an_added_token_of_tokenizer_json_beyond_the_embedding_is_found(copy: Path) -> None:
    edit(copy / WHOLE, lambda c: c["added_tokens"][0].update(id=400))
    assert "the token id 400" in failed(verify(copy))["token-ids-in-embedding"].message


def test_a_unigram_vocabulary_is_counted(copy: Path) -> None:
    edit(copy / WHOLE, lambda c: c.update(model={"vocab": [["piece", -1.0]] * 321}))
    assert "the token id 320" in failed(verify(copy))["token-ids-in-embedding"].message


def test_a_number_of_any_length_ends_with_a_report(copy: Path) -> None:
    edit(copy / CONFIG, lambda c: c["added_tokens_decoder"].update({"9" * 9999: {"content": "x"}}))
    assert "token-ids-in-embedding" not in failed(verify(copy))


def test_an_embedding_larger_than_the_tokenizer_is_usual(copy: Path) -> None:
    assert "token-ids-in-embedding" not in failed(verify(copy))


@pytest.mark.parametrize("number", [-1, None, True, "320"])
def test_what_names_no_token_is_no_fault(copy: Path, number: object) -> None:
    edit(copy / "config.json", lambda c: c.update(pad_token_id=number))
    assert "token-ids-in-embedding" not in failed(verify(copy))


def test_a_packed_embedding_has_its_rows_all_the_same(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    tensors["model.embed_tokens.weight"] = torch.zeros(263, 4, dtype=torch.uint8)
    save_file(tensors, copy / "model.safetensors")
    edit(copy / "config.json", lambda c: c.update(eos_token_id=263))
    assert "263 rows" in failed(verify(copy))["token-ids-in-embedding"].message
