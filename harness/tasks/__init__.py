"""Folders of own lm-eval tasks, read as text: which tasks they define, and from which files."""

from harness.tasks.definitions import BUILDERS, Definition
from harness.tasks.files import is_there
from harness.tasks.folders import OwnTasks, read_own_tasks
from harness.tasks.groups import as_list, members_of, written_members
from harness.tasks.refusals import refusals_of

__all__ = [
    "BUILDERS",
    "Definition",
    "OwnTasks",
    "as_list",
    "is_there",
    "members_of",
    "read_own_tasks",
    "refusals_of",
    "written_members",
]
