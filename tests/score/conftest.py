"""A real model whose next token depends on the last one alone, so that its answers are known.

All layers add nothing: the embedding is the identity and the output layer a table of successors.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from harness import shipped
from harness.artifacts import Deployment, Suite, TaskSpec
from tests.nouns import deployment as deployment_of
from tests.nouns import suite_of, task_spec

END = "<|end|>"
NUM_TOKENS = 272
ALPHABET_TEXTS = ("abc abc abc", "k" * 200, "abc kk?", "", "x" * 31, "abc " * 20)
"""Texts to read: some fit in 32 tokens, some do not, one has none."""


class Served(NamedTuple):
    deployment: Deployment
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast


def make_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: index for index, letter in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrap: Any = PreTrainedTokenizerFast  # transformers leaves it untyped
    made: PreTrainedTokenizerFast = wrap(tokenizer_object=tokenizer, eos_token=END, pad_token=END)
    return made


def make_model(
    tokenizer: PreTrainedTokenizerFast, successors: Mapping[str, str], broken: str = ""
) -> PreTrainedModel:
    """Return a model in which `successors` follow letters and `broken` letters make NaN."""
    config = Qwen3Config(
        vocab_size=NUM_TOKENS,
        hidden_size=NUM_TOKENS,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
    )
    build: Any = Qwen3ForCausalLM  # transformers leaves it untyped
    model: Qwen3ForCausalLM = build(config)
    model.train(mode=False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "lm_head.weight")):
                parameter.zero_()
        embedding: Any = model.get_input_embeddings()
        embedding.weight.copy_(torch.eye(NUM_TOKENS))
        for letter, follower in successors.items():
            (before,), (after,) = tokenizer.encode(letter), tokenizer.encode(follower)
            model.lm_head.weight[after, before] = 1.0
        for letter in broken:
            embedding.weight[tokenizer.encode(letter)] = torch.nan
    return model


@pytest.fixture
def served() -> Callable[..., Served]:
    def make(successors: Mapping[str, str], *, broken: str = "", digest: str = "c") -> Served:
        tokenizer = make_tokenizer()
        deployment = deployment_of(version="1", model="tiny", checkpoint_digest=digest * 64)
        return Served(deployment, make_model(tokenizer, successors, broken), tokenizer)

    return make


@pytest.fixture
def spec() -> Callable[..., TaskSpec]:
    def make(name: str = "tiny_next", **changes: object) -> TaskSpec:
        tiny: dict[str, object] = {"items": 4, "margin": 0.5, "flip_rate": 0.1}
        return task_spec(name, **tiny | changes)

    return make


@pytest.fixture
def suite() -> Callable[..., Suite]:
    def make(*tasks: TaskSpec, **changes: object) -> Suite:
        tiny: dict[str, object] = {"max_model_len": 32, "batch_size": 3, "max_truncated": 0.1}
        return replace(suite_of(*tasks, **tiny | changes), tasks=tasks)

    return make


def write_task(folder: Path, name: str, rows: list[dict[str, object]], yaml: str) -> None:
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / f"{name}.yaml").write_text(
        f"task: {name}\ndataset_path: json\ntest_split: test\n"
        f"dataset_kwargs:\n  data_files:\n    test: {name}.jsonl\n{yaml}"
    )


GENERATE = """output_type: generate_until
doc_to_text: "{{prompt}}"
doc_to_target: "{{target}}"
generation_kwargs:
  until: ["\\n"]
  do_sample: false
  max_gen_toks: 6
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
"""

CHOOSE = """output_type: multiple_choice
doc_to_text: "{{prompt}}"
doc_to_target: gold
doc_to_choice: "{{choices}}"
target_delimiter: ""
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of local tasks: `tiny_next` is generated, `tiny_choice` is chosen."""
    folder = tmp_path / "shipped" / "tiny"
    folder.mkdir(parents=True)
    rows: list[dict[str, object]] = [
        {"prompt": "xx a", "target": "b"},
        {"prompt": "a longer prompt: a", "target": "b"},
        {"prompt": "k", "target": "kkkkkk"},
        {"prompt": "?", "target": "never"},
    ]
    write_task(folder, "tiny_next", rows, GENERATE)
    choices: list[dict[str, object]] = [
        {"prompt": "xa", "choices": ["b", "c"], "gold": 0},
        {"prompt": "a", "choices": ["c", "b"], "gold": 0},
    ]
    write_task(folder, "tiny_choice", choices, CHOOSE)
    monkeypatch.setattr(shipped, "tasks", lambda: tmp_path / "shipped")
    return folder
