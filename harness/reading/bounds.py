"""Every bound on what is read from others, in one place, each with its reason.

A bound is far above what published checkpoints, suites and servers have, and low enough that no
file within it costs more than 2 GB of memory or 10 seconds of a processor.
"""

CONFIG_BYTES = 16 << 20
"""config.json, hf_quant_config.json, tokenizer_config.json and the like. The largest published
ones list the modules of 60 layers of 256 experts one by one, in 3 MB."""

INDEX_BYTES = 128 << 20
"""model.safetensors.index.json and manifests: 600,000 tensors of 200 bytes each."""

HEADER_BYTES = 100_000_000
"""Header of a safetensors file; the limit of the safetensors package."""

TEXT_BYTES = 4 << 20
"""A chat template, or another file that is one text; the largest published template is 30 kB."""

YAML_BYTES = 1 << 20
"""A recipe, a suite, a smoke set or waivers, which people write; 1 MiB takes 2 s to read."""

YAML_VALUES = 500_000
"""In a YAML file, each counted as often as aliases name it: with those a file of 300 bytes can hold
a billion. As many as 1 MiB can hold without."""

FOLDER_FILES = 200_000
"""Files and folders below a folder of tasks, gone through for those that are read; lm-eval's own
has 17,000."""

CODE_FILES = 2_000
"""Python files of a folder of tasks, all of which are hashed; lm-eval itself has 700."""

CODE_BYTES = 16 << 20
"""Of such files together; those of lm-eval have 2 MB."""

IMPORTED_FILES = 256
"""Of one recipe, each counted as often as it is imported. Model-Optimizer's own have 12."""

IMPORTED_ENTRIES = 10_000
"""Of one list with its imports in place: files that import another twice double it each time."""

LINE_BYTES = 8 << 20
"""One line of JSON lines: a text of two million tokens, more than any model's context."""

LINES_BYTES = 1 << 30
"""A file of JSON lines, whose texts are held in memory together."""

LOG_MEMORY_BYTES = 4 << 30
"""Memory that inspect_ai's library may take for a folder of logs, one after another, beyond
what it has when it begins: a log of 1 GiB in one JSON text becomes three times as much."""

LOG_CPU_S = 600
"""For all logs of one folder, which one process reads; 1 GiB takes a minute."""

DEPTH = 64
"""Levels of lists and mappings in each other. Real files have 12; the readers of Rust programs
stop at 128, and functions that follow a value recursively are safe."""

DIGITS = 40
"""Of a whole number. transformers writes `model_max_length` as 1e30, in 31 digits; Python's own
limit of 4300 raises where such a number is printed, not where it is read."""

NAME_CHARACTERS = 1024
"""Of the name of a tensor; real ones have fewer than 200."""

DIMENSIONS = 64
"""Of a tensor; what torch supports."""

PATTERN_CHARACTERS = 16 << 10
"""Of one entry of an ignore list; regular expressions that list layers one by one have 2,000."""

MATCH_STEPS = 1_000_000
"""Of one regular expression against one name, at the worst, to be matched in this process: some
10 ms. What may take more is matched in a child process."""

MATCH_CPU_S = 2
"""For one regular expression and one name in the child process; ordinary ones take microseconds."""

RENDER_CPU_S = 3
"""For the conversations that are rendered in one go with one template: a hundred take 0.1 s."""

RENDERED_CHARACTERS = 64 << 20
"""Of all texts that one rendering gives."""

CHILD_BYTES = 1 << 30
"""Memory of a child process beyond what it has when it begins."""
