"""How many tokens a batch should have: found by running one layer on more and more of them.

A GPU runs a token of a large batch faster than one of a small batch, up to a size that depends on
the GPU and on the model; beyond it only the memory grows. For a CPU the size is set.

Shapes: B samples of a batch, T tokens of a sample.
"""

import logging
import time
from collections.abc import Callable

import torch
from torch import Tensor

from harness.models import is_out_of_memory

_log = logging.getLogger("harness.calibrate")
CPU_TOKENS = 8192
_FEWEST, _MOST = 4096, 65536
_WORTH = 1.05
"""How much faster twice as many tokens must run one to be worth their memory."""
_REPEATS = 2


def measure_batch_tokens(
    run: Callable[[Tensor], object],
    *,
    length: int,
    vocabulary: int,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """Return the fewest tokens of a batch that run nearly as fast as more.

    Args:
        run: takes ids [B, T] and returns when they have gone through a layer.
        length: of a sample.
        vocabulary: number of token ids.
        clock: returns seconds.
    """
    samples = max(1, _FEWEST // length)
    chosen, fastest = samples, 0.0
    while samples == chosen or samples * length <= _MOST:
        shape = (samples, length)
        ids_BT = torch.randint(vocabulary, shape, generator=torch.Generator().manual_seed(0))
        try:
            rate = ids_BT.numel() / min(_seconds(run, ids_BT, clock) for _ in range(_REPEATS))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            break
        _log.info("calibrate: %d tokens a batch run at %.0f a second", ids_BT.numel(), rate)
        if rate < fastest * _WORTH:
            break
        chosen, fastest, samples = samples, rate, 2 * samples
    return max(_FEWEST, chosen * length)


def _seconds(run: Callable[[Tensor], object], ids_BT: Tensor, clock: Callable[[], float]) -> float:
    started = clock()
    run(ids_BT)
    return clock() - started
