"""How far two checkpoints of one model agree, tensor by tensor.

    python -m scripts.bench.tensors OURS THEIRS

Both were made from the same weights and texts, by different forwards: what depends on weights alone
should be equal, input scales differ by what is rounded in the model and by the tokens that take
another expert for it. In the first decoder layer only the former is seen.
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.verify.shards import read_shard

_ULP = 2.0**-23
_FIRST = re.compile(r"\.layers\.0\.")


class Stored(NamedTuple):
    """A tensor of a file."""

    dtype: str
    shape: tuple[int, ...]
    content: NDArray[np.uint8]


def main() -> None:
    """Compare and print."""
    if len(sys.argv) != 3:  # noqa: PLR2004 - two folders
        sys.exit(f"usage: python -m scripts.bench.tensors OURS THEIRS, not {sys.argv[1:]}")
    for name, value in agreement(Path(sys.argv[1]), Path(sys.argv[2])).items():
        print(f"{name}: {value}")


def agreement(ours: Path, theirs: Path) -> Mapping[str, str]:
    """Return what is equal, of how many."""
    mine, others = dict(_stored(ours)), dict(_stored(theirs))
    both = sorted(mine.keys() & others.keys())
    same_type = [name for name in both if mine[name][:2] == others[name][:2]]
    kinds: dict[str, list[str]] = {"other": [], "codes": [], "global": [], "inputs": []}
    for name in same_type:
        kinds[_kind(name, mine)].append(name)

    def equal(names: Iterable[str]) -> list[str]:
        return [n for n in names if np.array_equal(mine[n].content, others[n].content)]

    def furthest(names: Iterable[str]) -> float:
        return max((_distance(mine[n], others[n]) for n in names), default=0.0)

    first = [name for name in kinds["inputs"] if _FIRST.search(name)]
    return {
        "names, types and shapes": f"{len(same_type)} of {len(mine.keys() | others.keys())}",
        "what is not quantized": _of(equal, kinds["other"]),
        "global scales": f"{_of(equal, kinds['global'])}, the others within "
        f"{furthest(kinds['global']) / _ULP:.1f} x 2^-23",
        "codes and block scales": f"{_of(equal, kinds['codes'])}, and "
        f"{_share(kinds['codes'], mine, others):.3%} of their bytes",
        "input scales of the first layer": f"{_of(equal, first)}, the others within "
        f"{furthest(first):.2%}",
        "all input scales": f"{_of(equal, kinds['inputs'])}, the others within "
        f"{furthest(kinds['inputs']):.2%}",
    }


def _of(equal: Callable[[Iterable[str]], list[str]], names: list[str]) -> str:
    return f"{len(equal(names))} of {len(names)} equal"


def _kind(name: str, mine: Mapping[str, Stored]) -> str:
    module, _, leaf = name.rpartition(".")
    if leaf == "input_scale":
        return "inputs"
    if leaf == "weight_scale_2":
        return "global"
    return "codes" if f"{module}.weight_scale" in mine else "other"


def _stored(folder: Path) -> Iterator[tuple[str, Stored]]:
    for path in sorted(folder.glob("*.safetensors")):
        shard = read_shard(path)
        content = np.memmap(path, np.uint8, "r")[shard.data_start :]
        for name, (header, start, end) in shard.entries.items():
            yield name, Stored(header.dtype, tuple(header.shape), content[start:end])


def _distance(one: Stored, other: Stored) -> float:
    """Return how far two scales are from each other, as a share of the second."""
    mine, theirs = (float(part.content.view(np.float32)[0]) for part in (one, other))
    return abs(mine / theirs - 1)


def _share(names: list[str], mine: Mapping[str, Stored], others: Mapping[str, Stored]) -> float:
    num_bytes = sum(mine[name].content.size for name in names)
    num_same = sum(int((mine[n].content == others[n].content).sum()) for n in names)
    return num_same / max(num_bytes, 1)


if __name__ == "__main__":
    main()
