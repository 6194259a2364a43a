"""Tiny random models of every decoder family that transformers can build.

A model is made by what the keys of its configuration mean (`sizes.py`, `shrink.py`);
`corrections.py` is what that gets wrong of single types, `catalogue.py` which types there are. All
are bf16, seeded, of 1 to 20 million parameters, and written as real checkpoints (`build.py`,
`layouts.py`).
"""
