"""Models: their files, their structure, the running model and what flows through it.

torch and transformers take seconds to import, and who looks at files alone needs neither. So each
part is imported when one of its names is first used: a module that may do without writes `from
harness import models` and `models.layers_of(...)`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

# Two are called as their files are, which an import later would put in their place.
from harness.models.sidecars import MANIFEST_FILE, files_of, sidecars
from harness.models.stored_weights import stored_weights

if TYPE_CHECKING:
    from harness.models.alike import Powers, unproven
    from harness.models.architecture import architecture_of, difference
    from harness.models.convolutions import fused_convolutions, tunes_itself
    from harness.models.decoder import answering, decoder_layers
    from harness.models.digests import (
        FileState,
        believe_no_cache,
        digest_folder,
        remember_written,
        sha256_of,
        state_of,
        states_of,
        unchanged,
    )
    from harness.models.dtypes import header_dtype
    from harness.models.inventory import layers_of, read_inventory
    from harness.models.kept_routing import KeptRouting
    from harness.models.load import load_model
    from harness.models.memory import RUN_ERRORS, is_out_of_memory
    from harness.models.mixed_types import mixed_types_run
    from harness.models.norms import fused_norms
    from harness.models.observe import (
        OnKv,
        experts_run,
        tap_attention,
        tap_linears,
    )
    from harness.models.reader import TensorReader, stored_dtype, stored_dtype_name
    from harness.models.reading_rate import read_rate
    from harness.models.slices import cut
    from harness.models.source import (
        Source,
        locate_model,
        open_source,
        read_source,
        refuse_ambiguous,
    )
    from harness.models.stacks import Stack, StackedWeights, by_parameter
    from harness.models.stream import ResidentLayer, StreamedModel, layers_too_big
    from harness.models.structure import vocabulary_size
    from harness.models.token_ids import ids_beyond_embedding, is_token_id, settings_in
    from harness.models.tokenizers import (
        TOKENIZER_FILES,
        has_tokenizer,
        load_tokenizer,
        refuse_no_tokenizer,
    )
    from harness.models.transfer import gpu_index, threads_for
    from harness.models.twin import twin_of
    from harness.models.weight_files import INDEX, SETTLED_NS, WeightFiles, find_weights

__all__ = [
    "INDEX",
    "MANIFEST_FILE",
    "RUN_ERRORS",
    "SETTLED_NS",
    "TOKENIZER_FILES",
    "FileState",
    "KeptRouting",
    "OnKv",
    "Powers",
    "ResidentLayer",
    "Source",
    "Stack",
    "StackedWeights",
    "StreamedModel",
    "TensorReader",
    "WeightFiles",
    "answering",
    "architecture_of",
    "believe_no_cache",
    "by_parameter",
    "cut",
    "decoder_layers",
    "difference",
    "digest_folder",
    "experts_run",
    "files_of",
    "find_weights",
    "fused_convolutions",
    "fused_norms",
    "gpu_index",
    "has_tokenizer",
    "header_dtype",
    "ids_beyond_embedding",
    "is_out_of_memory",
    "is_token_id",
    "layers_of",
    "layers_too_big",
    "load_model",
    "load_tokenizer",
    "locate_model",
    "mixed_types_run",
    "open_source",
    "read_inventory",
    "read_rate",
    "read_source",
    "refuse_ambiguous",
    "refuse_no_tokenizer",
    "remember_written",
    "settings_in",
    "sha256_of",
    "sidecars",
    "state_of",
    "states_of",
    "stored_dtype",
    "stored_dtype_name",
    "stored_weights",
    "tap_attention",
    "tap_linears",
    "threads_for",
    "tunes_itself",
    "twin_of",
    "unchanged",
    "unproven",
    "vocabulary_size",
]

_LATER = {
    "Powers": "alike",
    "unproven": "alike",
    "SETTLED_NS": "weight_files",
    "states_of": "digests",
    "state_of": "digests",
    "FileState": "digests",
    "KeptRouting": "kept_routing",
    "INDEX": "weight_files",
    "TOKENIZER_FILES": "tokenizers",
    "OnKv": "observe",
    "ResidentLayer": "stream",
    "Source": "source",
    "Stack": "stacks",
    "StackedWeights": "stacks",
    "StreamedModel": "stream",
    "TensorReader": "reader",
    "WeightFiles": "weight_files",
    "answering": "decoder",
    "architecture_of": "architecture",
    "believe_no_cache": "digests",
    "by_parameter": "stacks",
    "cut": "slices",
    "decoder_layers": "decoder",
    "difference": "architecture",
    "digest_folder": "digests",
    "experts_run": "observe",
    "find_weights": "weight_files",
    "fused_convolutions": "convolutions",
    "fused_norms": "norms",
    "gpu_index": "transfer",
    "has_tokenizer": "tokenizers",
    "header_dtype": "dtypes",
    "ids_beyond_embedding": "token_ids",
    "RUN_ERRORS": "memory",
    "is_out_of_memory": "memory",
    "is_token_id": "token_ids",
    "layers_of": "inventory",
    "layers_too_big": "stream",
    "load_model": "load",
    "load_tokenizer": "tokenizers",
    "locate_model": "source",
    "mixed_types_run": "mixed_types",
    "open_source": "source",
    "read_inventory": "inventory",
    "read_rate": "reading_rate",
    "read_source": "source",
    "refuse_ambiguous": "source",
    "refuse_no_tokenizer": "tokenizers",
    "remember_written": "digests",
    "settings_in": "token_ids",
    "sha256_of": "digests",
    "stored_dtype": "reader",
    "stored_dtype_name": "reader",
    "tap_attention": "observe",
    "tap_linears": "observe",
    "threads_for": "transfer",
    "tunes_itself": "convolutions",
    "twin_of": "twin",
    "unchanged": "digests",
    "vocabulary_size": "structure",
}
"""Module of each."""


def __getattr__(name: str) -> object:
    if name not in _LATER:
        message = f"module '{__name__}' has no attribute '{name}'"
        raise AttributeError(message)
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
