"""Run the command line with `python -m harness`."""

from harness.cli import app

if __name__ == "__main__":
    app()
