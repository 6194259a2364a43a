"""Models: their files, their structure, the running model and what flows through it."""

from harness.models.architecture import architecture_of, difference
from harness.models.convolutions import fused_convolutions, tunes_itself
from harness.models.decoder import answering, decoder_layers
from harness.models.digests import (
    believe_no_cache,
    digest_folder,
    remember_written,
    sha256_of,
    unchanged,
)
from harness.models.dtypes import header_dtype
from harness.models.inventory import layers_of, read_inventory
from harness.models.load import load_model
from harness.models.memory import is_out_of_memory
from harness.models.mixed_types import mixed_types_run
from harness.models.observe import (
    OnKv,
    experts_run,
    tap_attention,
    tap_linears,
)
from harness.models.reader import TensorReader, stored_dtype, stored_dtype_name
from harness.models.reading_rate import read_rate
from harness.models.sidecars import MANIFEST_FILE, files_of, sidecars
from harness.models.source import (
    Source,
    locate_model,
    open_source,
    read_source,
    refuse_ambiguous,
)
from harness.models.stacks import Stack, StackedWeights, by_parameter
from harness.models.stored_weights import stored_weights
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
from harness.models.weight_files import INDEX, WeightFiles, find_weights

__all__ = [
    "INDEX",
    "MANIFEST_FILE",
    "TOKENIZER_FILES",
    "OnKv",
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
    "decoder_layers",
    "difference",
    "digest_folder",
    "experts_run",
    "files_of",
    "find_weights",
    "fused_convolutions",
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
    "stored_dtype",
    "stored_dtype_name",
    "stored_weights",
    "tap_attention",
    "tap_linears",
    "threads_for",
    "tunes_itself",
    "unchanged",
    "vocabulary_size",
]
