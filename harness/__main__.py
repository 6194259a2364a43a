"""Run the command line: `python -m harness`, and the program `harness`."""

import gc

from harness.surroundings import leave_current_folder

_ALLOCATIONS = 10_000
"""Between two collections of cycles. Python's 700 let a sixth of a start with a million objects be
looking through them."""


def program() -> None:
    """Be the program: run the command that was typed, and end with its code."""
    leave_current_folder()  # before anything else is imported
    from harness.leaving import leaving_at_once  # noqa: PLC0415

    gc.set_threshold(_ALLOCATIONS, 10, 10)
    with leaving_at_once():
        main()


def main() -> None:
    """Run the command that was typed; a signal has its ending from the first import on."""
    leave_current_folder()
    from harness import cores  # noqa: F401, PLC0415  # which counts them
    from harness.interrupts import listen  # noqa: PLC0415

    listen()
    from harness.cli import run  # noqa: PLC0415

    run()


if __name__ == "__main__":
    program()
