"""Run every cell of a matrix in one night, each as a process of its own."""

from harness.nightly.matrix import Cell, Matrix, load_matrix

__all__ = ["Cell", "Matrix", "load_matrix"]
