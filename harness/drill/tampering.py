"""Open a copy of a checkpoint, change a part of it, and write just that part back.

The copy is made of hard links, so nothing is ever written in place: what changes becomes a new
file under the old name, and the correct checkpoint stays as it was. The manifest of hashes is
written anew, as the faulty tool itself would have written it: with the old one every fault would
be found by the same check, and the others would stay unproven.
"""

import copy
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.artifacts import digest_of, write_atomically

MANIFEST = "harness.json"
CONFIG = "config.json"
HF_CONFIG = "hf_quant_config.json"
_WEIGHTS = "model.safetensors"


class Files:
    """A checkpoint's tensors and JSON files, as they lie on the disk and as they shall lie there.

    A checkpoint of the canary is one file of weights; `split` makes it two.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tensors: dict[str, Tensor] = load_file(folder / _WEIGHTS)
        self._before = dict(self.tensors)
        self._json: dict[str, dict[str, Any]] = {}

    def matching(self, pattern: str) -> list[str]:
        """Return the tensors whose whole name matches the regular expression `pattern`.

        Raises:
            LookupError: none does, so that the fault would change nothing.
        """
        regex = re.compile(pattern)
        found = [name for name in self.tensors if regex.fullmatch(name)]
        if not found:
            message = f"no tensor is called '{pattern}'"
            raise LookupError(message)
        return found

    def change(self, pattern: str, function: Callable[[Tensor], Tensor]) -> None:
        """Replace each tensor that matches by what `function` makes of it."""
        for name in self.matching(pattern):
            self.tensors[name] = function(self.tensors[name]).contiguous()

    def drop(self, pattern: str) -> None:
        """Delete each tensor that matches."""
        for name in self.matching(pattern):
            del self.tensors[name]

    def exchange(self, one: str, other: str) -> None:
        """Let all tensors below the modules `one` and `other` change places."""
        for name in self.matching(re.escape(one) + r"\..+"):
            twin = other + name.removeprefix(one)
            self.tensors[name], self.tensors[twin] = self.tensors[twin], self.tensors[name]

    def json(self, name: str) -> dict[str, Any]:
        """Return the contents of a JSON file; changes to it will be written."""
        if name not in self._json:
            self._json[name] = json.loads((self.folder / name).read_bytes())
        return self._json[name]

    def declare(
        self, *, algo: str | None = "", ignore: Callable[[list[str]], list[str]] | None = None
    ) -> None:
        """Change what both configurations declare: the algorithm, the ignore list.

        Args:
            algo: the algorithm's new name, None for null; empty leaves it.
            ignore: takes the list and returns the new one.
        """
        places = (
            (self.json(CONFIG)["quantization_config"], "ignore"),
            (self.json(HF_CONFIG)["quantization"], "exclude_modules"),
        )
        for declared, key in places:
            if algo != "":
                declared["quant_algo"] = algo
            if ignore is not None:
                declared[key] = ignore(list(declared[key]))

    def put(self, name: str, content: bytes) -> None:
        """Replace a file by one with `content`."""
        (self.folder / name).unlink()
        (self.folder / name).write_bytes(content)

    def split(self) -> tuple[str, str]:
        """Write the weights as two files with an index, which is a layout like any other."""
        names = [f"model-{number:05d}-of-00002.safetensors" for number in (1, 2)]
        ordered = sorted(self.tensors)
        middle = len(ordered) // 2
        halves = (ordered[:middle], ordered[middle:])
        for file, half in zip(names, halves, strict=True):
            save_file({n: self.tensors[n] for n in half}, self.folder / file, {"format": "pt"})
        (self.folder / _WEIGHTS).unlink()
        index = {n: file for file, half in zip(names, halves, strict=True) for n in half}
        total = sum(tensor.nbytes for tensor in self.tensors.values())
        self.write_index(index, total)
        self._before = dict(self.tensors)
        return names[0], names[1]

    def write_index(self, weight_map: Mapping[str, str], total: int) -> None:
        """Write the index of a checkpoint of several files."""
        values = {"metadata": {"total_size": total}, "weight_map": dict(weight_map)}
        path = self.folder / "model.safetensors.index.json"
        write_atomically(path, json.dumps(values, indent=2) + "\n")

    def read_index(self) -> dict[str, Any]:
        """Return the index."""
        values: dict[str, Any] = json.loads(
            (self.folder / "model.safetensors.index.json").read_bytes()
        )
        return values

    def write(self) -> None:
        """Write what has changed, and a manifest of what lies there then."""
        is_same = self.tensors.keys() == self._before.keys() and all(
            tensor is self._before[name] for name, tensor in self.tensors.items()
        )
        if not is_same:
            partial = self.folder / f".{_WEIGHTS}.partial"
            save_file(copy.copy(self.tensors), partial, {"format": "pt"})
            partial.replace(self.folder / _WEIGHTS)
        for name, values in self._json.items():
            write_atomically(self.folder / name, json.dumps(values, indent=2) + "\n")
        self._write_manifest()

    def _write_manifest(self) -> None:
        path = self.folder / MANIFEST
        if not path.exists():
            return
        sha256 = {
            str(file.relative_to(self.folder)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(self.folder.rglob("*"))
            if file.is_file() and file != path
        }
        manifest = json.loads(path.read_bytes())
        manifest |= {"sha256": sha256, "digest": digest_of(sha256)}
        manifest.pop("tensors_xxh3", None)  # the files' own hashes do as well
        write_atomically(path, json.dumps(manifest, indent=2) + "\n")


def link_checkpoint(correct: Path, into: Path) -> None:
    """Make `into` a copy of a checkpoint that takes no room: its files are hard links."""
    shutil.rmtree(into, ignore_errors=True)
    shutil.copytree(correct, into, copy_function=os.link)


@contextmanager
def tampering(folder: Path) -> Iterator[Files]:
    """Give a checkpoint's files to be changed; afterwards the changes are written."""
    files = Files(folder)
    yield files
    files.write()
