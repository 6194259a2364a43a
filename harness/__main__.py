"""Run the command line: `python -m harness`, and the program `harness`."""

from harness.surroundings import leave_current_folder


def program() -> None:
    """Be the program: run the command that was typed, and end with its code."""
    leave_current_folder()  # before anything else is imported
    from harness.leaving import leaving_at_once  # noqa: PLC0415

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
