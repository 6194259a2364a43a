"""What is told apart in the table: thresholds of thinness, and whose scales a text gives."""

THRESHOLDS = (1, 8, 32, 128, 512)
"""Tokens of a projection of an expert."""
KINDS = ("a scale of each layer's experts", "a scale of each expert", "all scales of the model")
"""The scales that come from the text at hand; the others come from all samples."""
