"""Models that hear, read and speak: the part that makes logits of token ids is found."""

import torch
import transformers
from transformers import CONFIG_MAPPING

from harness.models import answering, decoder_layers
from scripts.families.catalogue import find
from scripts.families.shrink import small_settings


def built(name: str) -> transformers.PreTrainedModel:
    spec = find(name)
    config = CONFIG_MAPPING[spec.model_type](**small_settings(spec.model_type, spec.corrections))
    model_class = getattr(transformers, spec.architecture)
    with torch.device("meta"):
        model: transformers.PreTrainedModel = model_class._from_config(config)  # noqa: SLF001  # of a given class
    return model


def test_of_a_model_that_speaks_the_part_that_reads_text_is_found() -> None:
    model = built("qwen3_omni_moe")
    assert answering(model) is model.thinker
    assert decoder_layers(model) is model.thinker.model.layers


def test_any_other_model_answers_itself() -> None:
    model = built("qwen3_vl")
    assert answering(model) is model
