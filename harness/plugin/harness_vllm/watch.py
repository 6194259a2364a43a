"""One load of one model, from the empty parameters to the load report."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from safetensors import safe_open
from torch import Tensor, nn

from .fill import fill_with_nan
from .ledger import Parameter, Reconciled, reconcile, was_written
from .parts import foreign_experts, parameters
from .tape import Tape

_NEVER_LOADED = r"(^|\.)mtp\.|\.rotary_emb\.inv_freq$"
"""Draft heads for speculative decoding, and tables that the engine computes."""
_NOT_LANGUAGE = r"(^|\.)(visual|vision_\w+|audio_\w+|multi_modal_projector|mm_projector)\."
_TIED_HEAD = r"(^|\.)lm_head\."


class Watch:
    """What is known of a load so far."""

    def __init__(self, *, model_config: Any, cache: Any) -> None:
        """Begin with nothing.

        Args:
            model_config: vLLM's, by which the load is known.
            cache: the module `kv_scales` of this package; None where vLLM has no place for it.
        """
        self.model_config = model_config
        self.tape = Tape()
        self._cache = cache
        self.scalars: dict[str, float] = {}
        """The tensors of one value, by their names."""
        self._names: set[str] = set()
        self._files: list[str] = []
        self._parameters: tuple[Parameter, ...] = ()
        self._kv_scales: tuple[tuple[str, Tensor], ...] = ()
        self._foreign_experts: frozenset[int] = frozenset()
        self._saw_all = False
        self.reconciled: Reconciled | None = None
        """None until all of the files has been read."""
        self._calibrated = False

    def begin(self, model: nn.Module) -> None:
        """Fill the parameters and note writes into them from now on."""
        cache = self._cache
        # Unless it is known which scales are the cache's, all that are called so are left alone.
        are_kv = cache.has_kv_scales if cache is not None else lambda _: True
        self._parameters = tuple(parameters(model, are_kv))
        self._kv_scales = tuple(cache.kv_scales(model)) if cache is not None else ()
        self._foreign_experts = foreign_experts(model)
        self.tape.watch(p.tensor for p in self._parameters)
        self.tape.watch(tensor for _, tensor in self._kv_scales)
        # What reaches a buffer (a router's correcting biases, a layer's scalar) is taken too.
        self.tape.watch(buffer for buffer in model.buffers() if not buffer.is_meta)
        fill_with_nan(self._parameters)

    def reads(self, files: Iterable[str]) -> None:
        """Remember the files that a loader is about to read."""
        self._files.extend(f for f in files if f.endswith(".safetensors"))

    def sees(self, name: str, tensor: Tensor) -> None:
        """Follow a tensor that comes out of the files."""
        self._names.add(name)
        self.tape.mark(name, tensor)
        if tensor.numel() == 1 and tensor.is_floating_point():
            self.scalars[name] = tensor.item()

    def saw_all(self) -> None:
        """Remember that the loader has asked for every tensor."""
        self._saw_all = True

    def end(self) -> bool:
        """Compare what was written with the model and with the files.

        Returns:
            Whether there was something to compare: not where a loader stopped half-way.

        Raises:
            RuntimeError: an operation could not be followed.
        """
        if not self._saw_all:
            return False
        if self.tape.failed is not None:
            raise RuntimeError(self.tape.failed)
        for file in dict.fromkeys(self._files):  # a tensor that was skipped was never seen
            with safe_open(file, framework="pt") as opened:
                self._names.update(opened.keys())
        written = [was_written(self.tape, tensor) for _, tensor in self._kv_scales]
        self._calibrated = any(written)
        holes = [n for (n, _), w in zip(self._kv_scales, written, strict=True) if not w]
        self.reconciled = reconcile(
            self._parameters, self.tape, in_files=self._names, set_aside=self._set_aside()
        ).with_more_parameters(len(written) if self._calibrated else 0, holes)
        return True

    def kv_scales_are(self, kv_cache: Sequence[str]) -> str:
        """Return which scales keys and values have, for the types of the caches."""
        if not any("fp8" in dtype or "nvfp4" in dtype for dtype in kv_cache):
            return "none"
        if self._cache is None or self.reconciled is None:
            return "unknown"
        return "calibrated" if self._calibrated else "default"

    def _set_aside(self) -> re.Pattern[str]:
        patterns = [_NEVER_LOADED]
        multimodal = self.model_config.multimodal_config
        if multimodal is not None and multimodal.language_model_only:
            patterns.append(_NOT_LANGUAGE)
        if getattr(self.model_config.hf_config, "tie_word_embeddings", False):
            patterns.append(_TIED_HEAD)
        if self._foreign_experts:
            ids = "|".join(map(str, sorted(self._foreign_experts)))
            patterns.append(rf"\.experts\.({ids})\.")
        return re.compile("|".join(patterns))
