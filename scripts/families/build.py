"""Build the small random model of a family and write it as a checkpoint.

Weights are drawn with a fixed seed. What initialization leaves at one value (norms, sinks, biases
that correct a router) is moved a little: a zero that is lost, or put in the wrong place, shows
nowhere.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import CONFIG_MAPPING, GenerationConfig, PreTrainedModel

from harness import shipped
from scripts.families.catalogue import Spec
from scripts.families.shrink import small_settings

VOCABULARY = 512
_MOST_PARAMETERS = 24e6
_SPREAD = 0.06
_MOVED = 0.05
_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SIGMOID = {"topk_method": "noaux_tc", "scoring_func": "sigmoid"}
_PUBLISHED: dict[str, dict[str, Any]] = {
    "deepseek_v3": _SIGMOID,
    "deepseek_v32": _SIGMOID,
    "glm_moe_dsa": _SIGMOID,
    "afmoe": {"n_group": 1, "route_norm": True, "score_func": "sigmoid", "topk_group": 1},
    "deepseek_v2": {"n_group": 1, "topk_group": 1},
    "glm4_moe": {"head_dim": 64},
    "glm4_moe_lite": {"first_k_dense_replace": 1},
    "glm4v_moe": {"text_config": {"head_dim": 64}},
    "lfm2": {"block_dim": 256},
    "longcat_flash": {
        "mla_scale_kv_lora": True,
        "mla_scale_q_lora": True,
        "zero_expert_type": "identity",
    },
    "minimax_m2": {
        "rotary_dim": 32,
        "scoring_func": "sigmoid",
        "use_qk_norm": True,
        "use_routing_bias": True,
    },
    "qwen3_vl_moe": {"text_config": {"norm_topk_prob": True}},
}
"""What published configurations say, engines read, and transformers' class does not have."""


def build(spec: Spec, seed: int = 0) -> PreTrainedModel:
    """Return the model of a family in bfloat16.

    Raises:
        ValueError: it would not be small.
    """
    settings = small_settings(spec.model_type, spec.corrections)
    config = CONFIG_MAPPING[spec.model_type](**settings)
    model_class = getattr(transformers, spec.architecture)
    with torch.device("meta"):
        size = sum(one.numel() for one in model_class._from_config(config).parameters())  # noqa: SLF001 -- the only way to a given class
    if size > _MOST_PARAMETERS:
        message = f"{spec.name} would have {size / 1e6:.0f} M parameters: scripts/families/sizes.py"
        raise ValueError(message)
    torch.manual_seed(seed)
    with _unwritten_is_nan():
        model: PreTrainedModel = model_class._from_config(config, dtype=torch.bfloat16)  # noqa: SLF001 -- as above
    _spread(model, torch.Generator().manual_seed(seed + 1))
    model.train(mode=False)
    return model


@contextmanager
def _unwritten_is_nan() -> Iterator[None]:
    """Let memory that nobody has written hold NaN: some parts of models are never initialized."""
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode=False)


def text_model(model: PreTrainedModel) -> Any:  # noqa: ANN401 -- a module that is called
    """Return what answers to token ids: models that hear and speak hold it in their thinker."""
    return getattr(model, "thinker", model)


@torch.no_grad()
def _spread(model: PreTrainedModel, generator: torch.Generator) -> None:
    """Give matrices a spread that shows in the answers, and move what is all one value."""
    tensors = {**dict(model.named_parameters()), **_stored_buffers(model)}
    for name, one in tensors.items():
        if not one.is_floating_point():
            if name.endswith("tid2eid"):  # which experts a token goes to, by its id
                one.copy_(torch.randint(0, 8, one.shape, generator=generator))
        elif one.isnan().any():
            one.copy_(_SPREAD * torch.randn(one.shape, generator=generator))
        elif one.numel() > 1 and bool((one == one.flatten()[0]).all()):
            one.add_(_MOVED * torch.randn(one.shape, generator=generator).to(one.dtype))
        elif one.ndim > 1 and one.std() < _SPREAD:
            one.mul_(_SPREAD / float(one.std()))


def _stored_buffers(model: PreTrainedModel) -> dict[str, Tensor]:
    kept = model.state_dict()
    return {name: one for name, one in model.named_buffers() if name in kept}


def write(spec: Spec, model: PreTrainedModel, folder: Path) -> None:
    """Write a checkpoint as `save_pretrained` does, with a tokenizer and a chat template."""
    model.generation_config = GenerationConfig.from_dict({"eos_token_id": 258, "pad_token_id": 256})
    model.save_pretrained(folder)
    # Some parts stay in float32 whatever type a model is loaded in, and are published so.
    loaded = type(model).from_pretrained(folder, dtype=torch.bfloat16)
    loaded.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_bytes())
    _merge(config, _PUBLISHED.get(spec.model_type, {}))
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    _write_tokenizer(folder)
    if "mrope_section" in json.dumps(config):
        for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
            shutil.copyfile(_canary() / name, folder / name)


def _merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict):
            _merge(into.setdefault(key, {}), value)
        else:
            into[key] = value


def _canary() -> Path:
    return shipped.canary() / "model"


def _write_tokenizer(folder: Path) -> None:
    """Write the canary's tokenizer, one token a byte, with unused ones up to the vocabulary."""
    tokenizer = json.loads((_canary() / "tokenizer.json").read_bytes())
    used = [one["id"] for one in tokenizer["added_tokens"]]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    tokenizer["added_tokens"] += [
        {"id": index, "content": f"<|unused_{index}|>", "special": True, **plain}
        for index in range(max(used) + 1, VOCABULARY)
    ]
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 512,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(_TEMPLATE, encoding="utf-8")
