"""Where the text decoder of a model is, beside towers that see or hear, and its list of layers.

Found from the embedding of the text: the decoder is the innermost model of transformers that holds
it, its layers the largest list of modules there.
"""

from typing import TYPE_CHECKING, NamedTuple

from torch import nn

from harness.errors import ModelError
from harness.models.exceptions import NEVER_READ_TEXT

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Decoder(NamedTuple):
    """The text decoder of a model."""

    path: str
    """Empty where it is the model itself."""
    paths: frozenset[str]
    """Of its modules, without those of models within it."""
    layers_path: str

    def holds(self, path: str) -> bool:
        """Tell whether a module belongs to it and to no model within it."""
        return path in self.paths

    def runs(self, path: str) -> bool:
        """Tell whether a module belongs to a decoder layer or stands beside them."""
        is_in_layers = path.startswith(f"{self.layers_path}.")
        return self.holds(path) and (is_in_layers or path.rpartition(".")[0] == self.path)


def find_decoder(model: "PreTrainedModel") -> Decoder:
    """Find the text decoder.

    Raises:
        ModelError: the model has no embedding of text, or no list of layers beside it.
    """
    from transformers import PreTrainedModel  # noqa: PLC0415 -- takes seconds

    models = {path for path, module in model.named_modules() if isinstance(module, PreTrainedModel)}
    owners = {path: _owner(path, models) for path, _ in model.named_modules()}
    embedding = _text_embedding(model)
    path = next(owners[name] for name, module in model.named_modules() if module is embedding)
    lists = {
        name: sum(parameter.numel() for parameter in module.parameters())
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) and owners[name] == path
    }
    if not lists:
        raise ModelError(_no_decoder(model, f"'{path or 'the model'}' has no list of layers"))
    unread = _never_read_text(model)
    within = frozenset(
        name
        for name, owner in owners.items()
        if owner == path and not f"{name}.".startswith(unread)
    )
    return Decoder(path, within, max(lists, key=lambda name: lists[name]))


def answering(model: "PreTrainedModel") -> "PreTrainedModel":
    """Return what makes logits of token ids: the model, or a part of one that also speaks.

    Such a model has no forward of its own. Its part for text is the one with its configuration of
    text.
    """
    from transformers import PreTrainedModel  # noqa: PLC0415 -- takes seconds

    if type(model).forward is not nn.Module.forward:
        return model
    text = model.config.get_text_config()
    for part in model.children():
        if isinstance(part, PreTrainedModel) and part.config.get_text_config() is text:
            return part
    return model


def decoder_layers(model: "PreTrainedModel") -> nn.ModuleList:
    """Return the text decoder's layers, also where they are nested in a multimodal model.

    Raises:
        ModelError: the model has no such list.
    """
    layers = model.get_submodule(find_decoder(model).layers_path)
    assert isinstance(layers, nn.ModuleList)  # noqa: S101  # it was looked for
    return layers


def _owner(path: str, models: set[str]) -> str:
    """Return the innermost model that a module belongs to."""
    while path and path not in models:
        path = path.rpartition(".")[0]
    return path


def _never_read_text(model: nn.Module) -> tuple[str, ...]:
    """Return the beginnings of the names of what no text reaches."""
    return tuple(
        f"{path}.{part}."
        for path, module in model.named_modules()
        for part in NEVER_READ_TEXT.get(type(module).__name__, ())
    )


def _text_embedding(model: "PreTrainedModel") -> nn.Module:
    try:
        found = answering(model).get_input_embeddings()
    except (AttributeError, NotImplementedError) as error:
        raise ModelError(_no_decoder(model, "it names no embedding of text")) from error
    if not isinstance(found, nn.Module):
        raise ModelError(_no_decoder(model, "it names no embedding of text"))
    return found


def _no_decoder(model: nn.Module, why: str) -> str:
    return (
        f"the text decoder of {type(model).__name__} was not found: {why}. Understood are models "
        "of transformers that hold the embedding of the text beside a list of layers."
    )
