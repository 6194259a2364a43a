"""Take the input scales of all experts out of a checkpoint: the incident that began it all."""

import json
from pathlib import Path

from safetensors.torch import load_file, save_file

from harness.models import INDEX, MANIFEST_FILE


def take_scales_away(folder: Path) -> None:
    """Write those files anew that hold them; as from another tool, the folder has no manifest."""
    (folder / MANIFEST_FILE).unlink(missing_ok=True)
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    lost = {name for name in index["weight_map"] if ".experts." in name and "input_scale" in name}
    for file in {index["weight_map"].pop(name) for name in lost}:
        kept = {n: t for n, t in load_file(folder / file).items() if n not in lost}
        save_file(kept, folder / file, metadata={"format": "pt"})
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
