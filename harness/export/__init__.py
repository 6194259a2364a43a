"""Write a checkpoint that serving engines load, and prove that it says what was meant."""

from harness.export.ignore import ignored_modules
from harness.export.size import bits_per_weight, required_bytes
from harness.export.write import Draft, check_target, export, shard_bytes

__all__ = [
    "Draft",
    "bits_per_weight",
    "check_target",
    "export",
    "ignored_modules",
    "required_bytes",
    "shard_bytes",
]
