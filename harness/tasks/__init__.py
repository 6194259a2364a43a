"""Folders of own lm-eval tasks, read as text: which tasks they define, and from which files."""

from harness.tasks.definitions import BUILDERS, Definition, as_list, is_there
from harness.tasks.folders import OwnTasks, read_own_tasks

__all__ = ["BUILDERS", "Definition", "OwnTasks", "as_list", "is_there", "read_own_tasks"]
