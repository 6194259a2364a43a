"""The `sglang` engine: a checkpoint served by an SGLang process."""
