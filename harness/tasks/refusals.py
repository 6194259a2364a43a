"""Why a task or a group is not loaded: lm-eval would run Python, or ask something else.

lm-eval imports what a YAML file names as it reads it, so this is asked before each time it does.
"""

from collections.abc import Iterator

from harness.tasks.definitions import Definition
from harness.tasks.groups import mistakes_of_group


def refusals_of(definition: Definition, *, task_code: bool) -> Iterator[str]:
    """Yield why a definition is not loaded, each as the end of a sentence about it.

    Args:
        definition: of a task or a group.
        task_code: whether Python of a task's folder may run; a group needs none.

    Raises:
        UnreadableError: a folder has too much code.
    """
    for one in definition.functions:
        what = f"{one.key}: !function {one.name} (line {one.line} of '{one.file.name}')"
        if definition.is_group:
            yield f"runs Python: {what}. Take it out; a group needs none."
        elif not task_code:
            whose = "lm-eval over what it says itself" if one.is_lm_evals else "its folder"
            yield (
                f"runs Python of {whose}: {what}. Write it as a template, or type --task-code "
                "if you trust it."
            )
        elif not one.is_lm_evals and one.module is None:
            yield (
                f"runs Python that is no file of its folder: {what}. Put the module's file there: "
                "the suite's digest has no other."
            )
    if definition.is_group:
        yield from mistakes_of_group(definition.config)
    elif "class" in definition.config:
        yield "is a Python class, whose items and prompts cannot be looked at. Write it as YAML."
