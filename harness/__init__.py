"""Quantize a model, serve it, score it, and decide with evidence whether it may be released."""

__version__ = "0.2.0.dev0"
