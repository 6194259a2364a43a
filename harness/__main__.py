"""Run the command line with `python -m harness`."""

from harness.surroundings import leave_current_folder

if __name__ == "__main__":
    leave_current_folder()  # before anything else is imported
    from harness.cli import app

    app()
