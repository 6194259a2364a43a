"""Folders of own lm-eval tasks, read as text: which tasks they define, and from which files."""

from harness.tasks.definitions import BUILDERS, Definition, as_list
from harness.tasks.folders import OwnTasks, read_own_tasks

__all__ = ["BUILDERS", "Definition", "OwnTasks", "as_list", "read_own_tasks"]
