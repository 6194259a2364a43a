"""One load of one model by SGLang, from the empty parameters to what its report says."""

import re
from collections.abc import Iterable, Iterator

from harness_vllm.fill import fill_with_nan
from harness_vllm.ledger import Reconciled, reconcile, was_written
from harness_vllm.tape import Tape
from torch import Tensor, nn
from torch.utils._mode_utils import no_dispatch

from .parts import foreign_experts, kv_scales, parameters

_NEVER_LOADED = r"(^|\.)mtp\.|\.rotary_emb\.inv_freq$"
_TIED_HEAD = r"(^|\.)lm_head\."


class Watch:
    """What is known of a load so far."""

    def __init__(self, model: nn.Module) -> None:
        """Fill the parameters and note writes into them from now on."""
        self.tape = Tape()
        self._model = model
        self._names: set[str] = set()
        self._parameters = tuple(parameters(model))
        self._kv_scales = tuple(kv_scales(model))
        self._saw_all = False
        self.reconciled: Reconciled | None = None
        self.kv_scales = "default"
        self.tape.watch(p.tensor for p in self._parameters)
        self.tape.watch(tensor for _, tensor in self._kv_scales)
        # What reaches a buffer (a router's correcting biases) is taken too.
        self.tape.watch(buffer for buffer in model.buffers() if not buffer.is_meta)
        fill_with_nan(self._parameters)

    def seen(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Yield what a loader reads, noted."""
        read = iter(weights)
        while True:
            with no_dispatch():  # the way from the file to memory is nothing that a tape follows
                found = next(read, None)
            if found is None:
                break
            self._names.add(found[0])
            self.tape.mark(*found)
            yield found
        self._saw_all = True

    def end(self) -> None:
        """Compare what was written with the model and with the files.

        Raises:
            RuntimeError: an operation could not be followed, or the files were not read through.
        """
        if self.tape.failed is not None or not self._saw_all:
            raise RuntimeError(self.tape.failed or "SGLang did not read all of the files")
        written = [was_written(self.tape, tensor) for _, tensor in self._kv_scales]
        calibrated = any(written)
        holes = [n for (n, _), w in zip(self._kv_scales, written, strict=True) if not w]
        self.kv_scales = "calibrated" if calibrated else "default"
        self.reconciled = reconcile(
            self._parameters, self.tape, in_files=self._names, set_aside=self._set_aside()
        ).with_more_parameters(len(written) if calibrated else 0, holes)

    def _set_aside(self) -> re.Pattern[str]:
        patterns = [_NEVER_LOADED]
        if getattr(getattr(self._model, "config", None), "tie_word_embeddings", False):
            patterns.append(_TIED_HEAD)
        if foreign := foreign_experts(self._model):
            patterns.append(rf"\.experts\.({'|'.join(map(str, sorted(foreign)))})\.")
        return re.compile("|".join(patterns))
