"""Write a checkpoint that serving engines load, and prove that it says what was meant."""

from harness.export.folder import check_target, partial_of
from harness.export.ignore import ignored_modules
from harness.export.size import bits_per_weight, required_bytes, shard_bytes, stored_bits
from harness.export.writer import CheckpointWriter, export

__all__ = [
    "CheckpointWriter",
    "bits_per_weight",
    "check_target",
    "export",
    "ignored_modules",
    "partial_of",
    "required_bytes",
    "shard_bytes",
    "stored_bits",
]
