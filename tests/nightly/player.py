"""Plays one attempt of a cell: what is typed as harness, in the place of a run of minutes.

python player.py FOLDER RUNS e2e --model=NAME ... --run-dir=DIR: the word of FOLDER/NAME/play for
this attempt says how it ends: the name of a run in RUNS, `refused`, `killed`, `told` to end before
anything was written, `full`, where the disk had no room for a word, or `wait`, which waits until it
is told to end. `go+killed` is killed behind its verdict, `go+full` has no room for its report.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

CODES = {"go": 0, "no-go": 4, "inconclusive": 5, "died": 3, "broken": 3, "disk": 3, "refused": 2}
WORDLESS = {"told": 143, "full": 3}


def option(name: str) -> str:
    return next(w.partition("=")[2] for w in sys.argv if w.startswith(f"--{name}="))


def main() -> int:
    folder, runs = Path(sys.argv[1], option("model")), Path(sys.argv[2])
    play, run_dir = (folder / "play").read_text().split(), Path(option("run-dir"))
    with (folder / "played").open("a") as played:
        played.write(f"{os.getpid()} {os.environ['CUDA_VISIBLE_DEVICES']}\n")
    number = len((folder / "played").read_text().splitlines())
    word, _, behind = play[min(number, len(play)) - 1].partition("+")
    sys.stdout.write("calibrate: 1 of 4 layers\n")
    if word == "wait":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        (folder / "waits").touch()
        while True:
            time.sleep(0.05)
    if word == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if word in WORDLESS:
        return WORDLESS[word]
    if word == "refused":
        sys.stderr.write("harness: 'x' is no model. Name one.\n")
        return CODES[word]
    shutil.rmtree(run_dir, ignore_errors=True)
    shutil.copytree(runs / word, run_dir)
    if behind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return WORDLESS.get(behind, CODES[word])


if __name__ == "__main__":
    sys.exit(main())
