"""End with 2 unless a folder's disk has room for what is to be made in it; needs Python alone.

    python scripts/enough_room.py WHO FOLDER GIB

What stands in the folder counts as free: it is replaced.
"""

import shutil
import sys
from pathlib import Path

_GIB = 1 << 30


def main() -> int:
    """Compare and say."""
    who, folder, needed = sys.argv[1], Path(sys.argv[2]).absolute(), int(sys.argv[3])
    held = sum(path.lstat().st_size for path in folder.rglob("*")) if folder.exists() else 0
    place = folder
    while not place.exists():
        place = place.parent
    free = (shutil.disk_usage(place).free + held) / _GIB
    if free >= needed:
        return 0
    print(
        f"{who}: '{folder}' needs {needed} GiB, and its disk has {free:.1f} GiB free. Free some.",
        file=sys.stderr,
    )
    return 2


if __name__ == "__main__":
    sys.exit(main())
