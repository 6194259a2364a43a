"""Build a model's modules without its weights.

On the meta device this costs no memory and tells every shape; on a real device the parameters
are allocated and hold whatever was in memory, while buffers that are no part of the files, such
as rotary frequencies, are computed. Only classes of transformers are built: code in the model's
folder is never run.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import torch
from huggingface_hub.errors import StrictDataclassError

from harness.errors import ModelError
from harness.models.source import Source
from harness.models.spared import sparing_imports

_CONFIG_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    StrictDataclassError,
    TypeError,
    ValueError,
)

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel
"""What transformers raises where config.json makes no sense, depending on where it notices."""


def build_model(source: Source, *, device: torch.device, dtype: torch.dtype) -> "PreTrainedModel":
    """Return the source's model, its parameters allocated on `device` and not yet filled.

    Buffers are computed on the CPU, whatever the device: functions of a GPU round differently.

    Raises:
        ModelError: config.json does not describe a model that transformers can build.
    """
    model = _built(source, device=device, dtype=dtype)
    if device.type not in {"cpu", "meta"}:
        # Parameters that are never written take no memory of the host.
        on_cpu = _built(source, device=torch.device("cpu"), dtype=dtype)
        for name, buffer in on_cpu.named_buffers():
            model.get_buffer(name).copy_(buffer)
    return model


@sparing_imports()
def _built(source: Source, *, device: torch.device, dtype: torch.dtype) -> "PreTrainedModel":
    from transformers.initialization import no_init_weights  # noqa: PLC0415 -- takes seconds

    model_class = _model_class(source)
    config = _config(source)
    try:
        with torch.device(device), no_init_weights():
            # The public AutoModel classes choose a class by themselves; this is what they call.
            build = cast("Callable[..., PreTrainedModel]", model_class._from_config)  # noqa: SLF001  # see above
            model = build(config, dtype=dtype)
    except _CONFIG_ERRORS as error:
        message = (
            f"'{source.path / 'config.json'}' describes no model that can be built "
            f"({_one_line(error)}). Compare it with the model's original."
        )
        raise ModelError(message) from error
    model.tie_weights()  # leaving out the initialization leaves this out too
    return model


def vocabulary_size(source: Source) -> int:
    """Return the number of token ids that the source's model has embeddings for.

    Raises:
        ModelError: config.json cannot be read.
    """
    try:
        return int(_config(source).get_text_config().vocab_size)
    except _CONFIG_ERRORS as error:
        message = f"'{source.path / 'config.json'}' has no vocab_size ({_one_line(error)})."
        raise ModelError(message + " Compare it with the model's original.") from error


@sparing_imports()
def _config(source: Source) -> "PreTrainedConfig":
    """Return the source's configuration; of a type that transformers lacks, as its class reads it.

    Some makers name a type of their own for an architecture that is another's, as Kimi K2 does.
    """
    from transformers import AutoConfig  # noqa: PLC0415 -- takes seconds

    try:
        named = None if _knows_type(source) else _named_class(source)
        if named is not None and named.config_class is not None:
            own: PreTrainedConfig = named.config_class.from_pretrained(source.path)
            vars(own)["model_type"] = named.config_class.model_type  # whose names its files have
            return own
        config: PreTrainedConfig = AutoConfig.from_pretrained(source.path, trust_remote_code=False)
    except (OSError, *_CONFIG_ERRORS) as error:
        message = (
            f"'{source.path / 'config.json'}' cannot be read as a configuration "
            f"({_one_line(error)}). Compare it with the model's original."
        )
        raise ModelError(message) from error
    return config


def _knows_type(source: Source) -> bool:
    from transformers import CONFIG_MAPPING  # noqa: PLC0415 -- takes seconds

    return source.config.get("model_type") in CONFIG_MAPPING


@sparing_imports()
def _model_class(source: Source) -> type["PreTrainedModel"]:
    """Return the class that config.json names under `architectures`, or that its type has."""
    import transformers  # noqa: PLC0415 -- takes seconds

    found = _named_class(source) or _class_of_type(source)
    if found is None:
        message = (
            f"'{source.path / 'config.json'}' names the architecture {_architecture(source)!r}, "
            f"which transformers {transformers.__version__} does not have. Correct "
            "'architectures', or upgrade transformers."
        )
        raise ModelError(message)
    return found


def _architecture(source: Source) -> str | None:
    architectures = source.config.get("architectures")
    name = architectures[0] if isinstance(architectures, list) and architectures else None
    return name if isinstance(name, str) else None


def _named_class(source: Source) -> type["PreTrainedModel"] | None:
    import transformers  # noqa: PLC0415 -- takes seconds

    found = getattr(transformers, _architecture(source) or "", None)
    is_model = isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)
    return found if is_model else None


def _class_of_type(source: Source) -> type["PreTrainedModel"] | None:
    """Return transformers' own class for a type whose makers name one of their own code."""
    from transformers import (  # noqa: PLC0415 -- takes seconds
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    )

    if _architecture(source) is None or "auto_map" not in source.config or not _knows_type(source):
        return None
    kind = type(_config(source))
    for mapping in (MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING):
        found = mapping.get(kind, None)
        if isinstance(found, type):
            return found
    return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
