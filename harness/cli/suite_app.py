"""The commands of `harness suite`; what each does is imported when it is typed."""

import dataclasses

import typer

from harness.cli import options as opt
from harness.cli.command import command
from harness.cli.console import Result
from harness.request import SERVING, Request

_SUITE_EXAMPLES = """Examples:

    harness suite new --tasks my_tasks --baseline MODEL --out mine.yaml

    harness suite check SUITE --model MODEL

    harness gate CHECKPOINT --baseline MODEL --suite mine.yaml
"""

suite_app = typer.Typer(
    help="Own evaluations: propose a suite from a baseline, or say what is wrong with one.",
    epilog=_SUITE_EXAMPLES,
    no_args_is_help=True,
    rich_markup_mode=None,
)


@command(
    suite_app,
    "suite check SUITE --model canary",
    *("model", "tasks", "task_code", "nel"),
    name="check",
    model=opt.AskedModel,
)
def check_suite(request: Request, *, suite_file: opt.SuiteFile) -> Result:
    """Say everything that is wrong with a suite and its tasks (exit 2), or what it can decide."""
    from harness.cli import suites

    return suites.check(request, suite_file)


@command(
    suite_app,
    "suite new --tasks my_tasks --baseline canary --out mine.yaml",
    *("model", "revision", "task_code", *SERVING, "device"),
    *("qformat", "calib_data", "calib_size"),
    name="new",
    model=opt.MeasuredModel,
)
def new_suite(  # noqa: PLR0913 - one parameter an option
    request: Request,
    *,
    tasks: opt.TaskNames,
    out: opt.NewFile,
    tasks_from: opt.TaskFolders = None,
    items: opt.Items = None,
    chat: opt.Chats = None,
    candidate: opt.MeasuredCandidate = None,
    repeats: opt.Repeats = 1,
    temperature: opt.Temperature = 0.0,
    top_p: opt.TopP = 1.0,
) -> Result:
    """Measure a baseline once, and write a suite with margins that can be decided, each explained.

    Flip rates are measured on --candidate, or on one that is made in --qformat; else assumed.
    """
    from harness.cli import suites
    from harness.proposing import NewSuite

    asked = NewSuite(
        request=dataclasses.replace(request, tasks=tuple(tasks_from or ())),
        names=tuple(name for one in tasks for name in one.split(",") if name),
        out=out,
        items=items,
        chats=chat,
        candidate=candidate,
        repeats=repeats,
        temperature=temperature,
        top_p=top_p,
    )
    return suites.new(asked)
