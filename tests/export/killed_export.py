"""Not a test: exports the model in argv[1] to argv[2] and, half way, waits to be killed.

It says so by creating the file argv[3].
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from harness.artifacts import CalibrationStats, QuantizedTensor
from harness.export import export
from harness.models import open_source, read_inventory
from harness.quantize import quantize
from harness.recipe import Request, load_recipe, plan


def half_way(stream: Iterator[QuantizedTensor], marker: Path) -> Iterator[QuantizedTensor]:
    for index, quantized in enumerate(stream):
        yield quantized
        if index == 10:
            marker.touch()
            time.sleep(600)


def main(model: str, into: str, marker: str) -> None:
    source = open_source(model)
    inventory = read_inventory(source)
    request = Request(model=model, qformat="nvfp4", device="cpu")
    chosen = plan(load_recipe(request), inventory)
    stats = CalibrationStats(
        weight_amax={linear.name: 1.0 for linear in inventory.linears},
        input_amax={linear.input_quantizer: 1.0 for linear in inventory.linears},
        coverage=(),
        num_samples=1,
        num_tokens=1,
    )
    stream = half_way(quantize(source, chosen, stats), Path(marker))
    export(source, chosen, stream, into=Path(into), max_shard_bytes=4096)


main(*sys.argv[1:])
