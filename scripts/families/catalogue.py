"""The families: every decoder that transformers can build, and shapes of one that count as two."""

from typing import Any, NamedTuple

from transformers.models.auto import modeling_auto

from scripts.families.corrections import CORRECTIONS
from scripts.families.shrink import merge

Settings = dict[str, Any]


class Spec(NamedTuple):
    """What a family is made from."""

    name: str
    model_type: str
    architecture: str
    corrections: Settings


_VARIANTS: dict[str, tuple[str, Settings]] = {
    "gemma4_moe": (
        "gemma4_text",
        {
            "enable_moe_block": True,
            "num_experts": 8,
            "top_k_experts": 2,
            "moe_intermediate_size": 192,
            "hidden_size_per_layer_input": 0,
        },
    ),
    "kimi_k2": ("deepseek_v3", {"n_group": 1}),
}
"""Published models that share a model type and differ in kind: by name, type and settings."""

_NOT_DECODERS = (  # noqa: SIM905 -- a name a line would be a screen
    "bart bert bert-generation big_bird bigbird_pegasus biogpt blenderbot blenderbot-small blip "
    "blip-2 camembert codegen cpmant ctrl data2vec-text electra ernie evolla florence2 git gpt-sw3 "
    "idefics instructblip instructblipvideo kosmos-2 kosmos-2.5 kyutai_speech_to_text marian mbart "
    "megatron-bert moshi musicgen musicgen_melody mvp openai-gpt pegasus pi0 pix2struct plbart "
    "pp_formulanet prophetnet reformer rembert roberta roberta-prelayernorm roc_bert roformer rwkv "
    "shieldgemma2 t5gemma2 trocr udop vision-encoder-decoder whisper xglm xlm xlm-roberta "
    "xlm-roberta-xl xlnet xmod"
).split()
"""Encoders, pairs of encoder and decoder, and what nobody quantizes any more."""

_NOT_TINY = {
    "blt": "an entropy model that splits bytes comes with it",
    "deepseek_ocr2": "does not run on text alone",
    "diffusion_gemma": "diffuses blocks instead of predicting tokens",
    "emu3": "does not run without its table of pictures' tokens",
    "fast_vlm": "its tower is timm's",
    "fun_asr_nano": "ties its adaptor's widths to the text's",
    "gemma3n": "its tower is timm's",
    "gemma4_assistant": "a draft head for another model",
    "gemma4_unified_assistant": "a draft head for another model",
    "granite4_vision": "its default text configuration does not fit its text model",
    "perception_lm": "its tower is timm's",
    "qwen2_5_omni": "its voice alone has 125 M parameters",
    "vibevoice_asr": "its tokenizers of sound alone have 700 M parameters",
    "voxtral_realtime": "does not run on text alone",
}
"""Model types that are left out, and why."""


def names() -> list[str]:
    """Return the names of all families, in order."""
    return sorted({*_architectures(), *_VARIANTS} - {*_NOT_DECODERS, *_NOT_TINY})


def find(name: str) -> Spec:
    """Return what a family is made from.

    Raises:
        KeyError: there is none of that name.
    """
    model_type, settings = _VARIANTS.get(name, (name, {}))
    corrections: Settings = {}
    merge(corrections, CORRECTIONS.get(model_type, {}))
    merge(corrections, settings)
    return Spec(name, model_type, _architectures()[model_type], corrections)


def _architectures() -> dict[str, str]:
    """Return the class of each model type; where there are two, the one with all its towers."""
    found = dict(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    found |= modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES
    return {key: one if isinstance(one, str) else one[0] for key, one in found.items()}
