"""What a model in this process makes of texts: log probabilities, and what each layer gives.

Letters: T tokens of a text, V tokens of the vocabulary, H hidden features.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from harness.artifacts import Inventory
from harness.models import answering, decoder_layers, tap_attention, tap_linears

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_KEPT_TOKENS = 512
"""Tokens of which every layer's output is kept: 190 MB of a model with 36 layers of 2,560."""
_SAME = 1e-3
"""Relative difference of a layer's outputs up to which the same arithmetic may come."""


class Read(NamedTuple):
    """What was read of all texts."""

    logprobs: Mapping[str, tuple[float, ...]]
    """Of each token from the second on, by text; not finite where the model gave that."""
    layers: Mapping[str, Tensor]
    """What each decoder layer gave for the first tokens [T, H], by its path; none of a server."""
    weights: Mapping[str, tuple[float, float]]
    """Sum and absolute sum of each parameter, by its path; none of a server."""


def read(model: "PreTrainedModel", texts: Mapping[str, Sequence[int]]) -> Read:
    """Let the model read texts, given in tokens, one by one."""
    logprobs: dict[str, tuple[float, ...]] = {}
    kept: dict[str, list[Tensor]] = {}
    speaking, num_kept = answering(model), 0
    for name, tokens in texts.items():
        num_wanted = max(0, min(len(tokens), _KEPT_TOKENS - num_kept))
        num_kept += num_wanted
        ids_BT = torch.tensor([list(tokens)], device=speaking.device)
        with torch.inference_mode(), _layers_seen(model, kept, num_wanted):
            logits_TV = speaking(input_ids=ids_BT, use_cache=False).logits[0, :-1].float()
            said_T = logits_TV.log_softmax(dim=-1).gather(1, ids_BT[0, 1:, None])[:, 0]
        logprobs[name] = tuple(said_T.tolist())
    weights = {
        path: (float(one.double().sum()), float(one.double().abs().sum()))
        for path, one in model.named_parameters()
    }
    layers = {path: torch.cat(parts) for path, parts in kept.items() if parts}
    return Read(logprobs, layers, weights)


@contextmanager
def _layers_seen(
    model: "PreTrainedModel", kept: dict[str, list[Tensor]], num_tokens: int
) -> Iterator[None]:
    names = {id(module): name for name, module in model.named_modules()}

    def keep(path: str, module: nn.Module, given: object, output: Tensor | tuple[Tensor]) -> None:
        del module, given
        hidden_BTH = output if isinstance(output, Tensor) else output[0]
        kept.setdefault(path, []).append(hidden_BTH[0, :num_tokens].float().cpu())

    with ExitStack() as hooks:
        for layer in decoder_layers(model) if num_tokens else ():
            handle = layer.register_forward_hook(partial(keep, names[id(layer)]))
            hooks.callback(handle.remove)
        yield


class Reach:
    """How far the inputs of a running model reach, seen by nothing that calibration uses."""

    def __init__(self, inventory: Inventory, amax: dict[str, float]) -> None:
        """Take where the largest absolute values are noted, by quantizer."""
        self._quantizers = {
            (linear.parameter.tensor, linear.parameter.expert): linear.input_quantizer
            for linear in inventory.linears
        }
        self._kv = {one.name: (one.k_quantizer, one.v_quantizer) for one in inventory.attentions}
        self._amax = amax

    @contextmanager
    def of(self, model: "PreTrainedModel") -> Iterator[None]:
        """Look at what flows through `model` inside the context."""
        with tap_linears(model, self._see), tap_attention(model, self._see_kv):
            yield

    def _see(self, parameter: str, expert: int | None, x: Tensor) -> None:
        quantizer = self._quantizers.get((parameter, expert))
        if quantizer is not None and x.numel():
            self._note(quantizer, x)

    def _see_kv(self, module: str, k: Tensor, v: Tensor) -> None:
        for quantizer, values in zip(self._kv.get(module, ()), (k, v), strict=False):
            self._note(quantizer, values)

    def _note(self, quantizer: str, values: Tensor) -> None:
        self._amax[quantizer] = max(self._amax.get(quantizer, 0.0), float(values.abs().max()))


def nll(one: Read) -> float | None:
    """Return the mean negative log probability of a token; None where one is not finite."""
    values = [value for text in one.logprobs.values() for value in text]
    mean = -sum(values) / max(len(values), 1)
    return mean if math.isfinite(mean) else None


def difference(one: Read, other: Read) -> float | None:
    """Return the mean absolute difference of a token's log probability; None if not finite.

    Texts that only one of them has read are left out.
    """
    gaps = [
        abs(a - b)
        for text in one.logprobs.keys() & other.logprobs.keys()
        for a, b in zip(one.logprobs[text], other.logprobs[text], strict=True)
    ]
    mean = sum(gaps) / max(len(gaps), 1)
    return mean if math.isfinite(mean) else None


def first_layer(one: Read, other: Read) -> str | None:
    """Return the path of the first decoder layer whose outputs part."""
    for path, hidden_TH in one.layers.items():
        theirs_TH = other.layers.get(path)
        if theirs_TH is None or theirs_TH.shape != hidden_TH.shape:
            continue
        gap = float((theirs_TH - hidden_TH).norm() / hidden_TH.norm().clamp_min(1e-30))
        if not gap <= _SAME:
            return path
    return None


def other_weights(one: Read, other: Read) -> list[str]:
    """Return the parameters that hold other values."""
    return [path for path, sums in one.weights.items() if other.weights.get(path, sums) != sums]
