"""Make tiny random models of families, as checkpoints in every layout in which they lie on disk.

    python -m scripts.families [NAME ...] --into FOLDER

FOLDER/NAME is as `save_pretrained` writes it; NAME-stacked, NAME-transposed and NAME-mxfp4 beside
it are the other layouts that transformers reads of the same model.
"""

import argparse
import sys
import warnings
from pathlib import Path

import transformers

from scripts.families.catalogue import names
from scripts.families.make import make


def main() -> int:
    """Make what was asked for, and say what could not be made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="families; all without")
    parser.add_argument("--into", type=Path, required=True)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    failed = 0
    for name in arguments.names or names():
        try:
            print(f"{name:<28} {', '.join(path.name for path in make(name, arguments.into))}")
        except (ValueError, RuntimeError, TypeError, AttributeError, KeyError) as error:
            failed += 1
            print(f"{name:<28} not made: {type(error).__name__}: {error}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
