"""Make a checkpoint: calibrate, quantize and write, in one process or in several.

A model that is run layer by layer is read once: each layer is quantized and written while it is in
memory, and so is what stays unquantized. The rest, such as the scales of inputs, is written at the
end. The files are the same bytes as those of a model that is held in memory as a whole.
"""

import dataclasses
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from functools import partial
from itertools import takewhile
from pathlib import Path

from harness.artifacts import CalibrationStats, Checkpoint, Smoothing, digest_of
from harness.baselines import versions
from harness.calibrate import Calibration, data_digest
from harness.errors import ReasonCode, StageError
from harness.export import CheckpointWriter, partial_of
from harness.in_turns import InTurns
from harness.models import StackedWeights, is_out_of_memory, threads_for
from harness.nodes import Launch, called, check_shared, launched
from harness.preflight import Job
from harness.quantize import ResidentQuantizer, fetched, quantize, read_unquantized, unquantized
from harness.ranks import ALONE, Ranks, together

_log = logging.getLogger("harness.calibrate")

_COPYING_THREADS = 4
"""Where a GPU runs the model. Each tensor is hashed by one thread, and two of a model are as big as
all others together that are not quantized."""


def calibrate_and_write(job: Job, writer: CheckpointWriter) -> CalibrationStats:
    """Calibrate, and write the weights that are in memory meanwhile.

    With several ranks, each calibrates with its share of the batches, and quantizes and writes its
    share of the layers.
    """
    if not job.recipe.calibration.layerwise:  # nothing is written meanwhile
        return make_layers(job, writer, ALONE)
    writer.begin()  # for other threads and processes to join
    if job.plan.algorithm.smoothing is not Smoothing.NONE:
        # What is not quantized may be changed too, and is written when it is known how.
        return make_layers(job, writer, ALONE)
    with _ranks(job, writer.into) as ranks:
        with _copying_unquantized(job, writer) as check:
            stats = make_layers(_on_own_device(job, ranks), writer, ranks, check)
        for written in ranks.all_gather({}):
            writer.adopt(written)
    return stats


def make_layers(
    job: Job, writer: CheckpointWriter, ranks: Ranks, check: Callable[[], None] = lambda: None
) -> CalibrationStats:
    """Do all that becomes of a decoder layer: read, measure, quantize, write, run.

    `check` raises what has gone wrong elsewhere meanwhile.
    """
    import torch

    device, done = torch.device(job.recipe.device), set[int]()
    calibration = Calibration(job.recipe, job.source, job.inventory, job.plan, ranks)
    weights, quantizer = StackedWeights(job.source, job.plan), ResidentQuantizer(job.plan)
    in_turns = InTurns(job, calibration, quantizer)
    runs_first = job.plan.algorithm.needs_inputs
    with threads_for(device, 1, "write") as thread, closing(calibration.layers()) as layers:
        written: Future[None] = thread.submit(quantizer.prepare, device)
        for layer in layers:  # a thread reads the next one
            check()
            with calibration.within_memory():
                if runs_first:
                    calibration.run(layer)
                if ranks.owns(layer.number) and layer.number not in done:
                    amax = calibration.weights.measure(weights.of(layer))
                    _wait_for(written)  # so that no more than two layers wait
                    stacks = weights.of(layer)
                    if job.plan.algorithm.follows_quantized:
                        quantized = in_turns.quantize(layer, stacks, amax)
                    else:
                        quantized = quantizer.quantize(stacks, amax, calibration.moments)
                    written = thread.submit(writer.put, fetched(quantized))
                    del quantized  # else it would stay on a GPU while the layer runs
                    done.add(layer.number)
                if not runs_first:
                    calibration.run(layer)
        _wait_for(written)
    return calibration.stats()


def complete(job: Job, writer: CheckpointWriter, stats: CalibrationStats) -> Checkpoint:
    """Quantize and write what is left."""
    source, plan, device = job.source, job.plan, job.recipe.device
    names = (planned.linear.name for planned in plan.quantized)
    quantized = (name for name in names if writer.has(f"{name}.weight"))
    done = frozenset([*quantized, *filter(writer.has, source.tensors)])
    return writer.complete(quantize(source, plan, stats, device=device, done=done))


@contextmanager
def _copying_unquantized(job: Job, writer: CheckpointWriter) -> Iterator[Callable[[], None]]:
    """Write what is not quantized, in threads, while the context lasts and until it is done.

    Gives a function that raises what went wrong so far.
    """
    names, is_over = unquantized(job.source, job.plan), threading.Event()

    def write(share: Sequence[str]) -> None:
        tensors = read_unquantized(job.source, share)
        writer.put(takewhile(lambda _: not is_over.is_set(), tensors), here=True)

    # A model that runs on the CPU needs the others.
    number = _COPYING_THREADS if job.recipe.device.startswith("cuda") else 1
    with ThreadPoolExecutor(number, "copy") as threads:
        writing = [threads.submit(write, names[begin::number]) for begin in range(number)]

        def check() -> None:
            _raise_failed(writing)

        try:
            yield check
        except Exception:
            check()  # damage that was found in the files explains what came of it
            raise
        else:
            started = time.perf_counter()
            wait(writing, return_when=FIRST_EXCEPTION)
            check()
            waited = time.perf_counter() - started
            _log.info("calibrate: waited %.2f s for what is not quantized", waited)
        finally:
            is_over.set()


def _raise_failed(work: Iterable[Future[None]]) -> None:
    for one in work:
        if one.done():
            one.result()


def _wait_for(written: "Future[None]") -> None:
    """Wait for what was handed to the thread that writes, and raise what went wrong there."""
    try:
        written.result()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        message = (
            "there is no memory of the host left to bring quantized weights to. Free some, and "
            "type the command again."
        )
        raise StageError(message, reason=ReasonCode.OUT_OF_MEMORY) from error


def _ranks(job: Job, into: Path) -> AbstractContextManager[Ranks]:
    """Start the other processes, or call those of torchrun, if the recipe wants any."""
    if job.recipe.ranks == 1:
        return nullcontext(ALONE)
    if (launch := launched()) is not None:
        return _ranks_of(launch, into)
    return together(job.recipe.ranks, partial(_be_a_rank, job, into))


@contextmanager
def _ranks_of(launch: Launch, into: Path) -> Iterator[Ranks]:
    with called(launch) as ranks:
        check_shared(partial_of(into), ranks)
        yield ranks


def help_make(job: Job, into: Path, ranks: Ranks) -> None:
    """Do the share of a process on another machine, which sees the same folder.

    Raises:
        StageError: it sees another one.
    """
    check_shared(partial_of(into), ranks)
    _be_a_rank(job, into, ranks)


def what_is_made(job: Job) -> Mapping[str, str]:
    """Return all that the checkpoint's bytes depend on, by what a person calls it."""
    import torch

    device = job.recipe.device
    is_gpu = device.startswith("cuda")
    return {
        "model": job.source.digest,
        "plan": job.plan.digest,
        "calibration setting": digest_of(job.recipe.calibration, device, job.recipe.ranks),
        "calibration data": data_digest(job.recipe.calibration),
        "version of a library": digest_of(versions()),
        "GPU": torch.cuda.get_device_name() if is_gpu else device,
        "TRITON_CACHE_DIR": os.environ.get("TRITON_CACHE_DIR", "none") if is_gpu else "",
    }


def _be_a_rank(job: Job, into: Path, ranks: Ranks) -> None:
    """Do another process's share."""
    if job.recipe.device == "cuda":
        import torch

        torch.cuda.set_device(ranks.gpu)
    with CheckpointWriter(job.source, job.plan, into=into, joins=True) as writer:
        writer.begin()
        make_layers(_on_own_device(job, ranks), writer, ranks)
        ranks.all_gather(writer.written())


def _on_own_device(job: Job, ranks: Ranks) -> Job:
    """Give each rank a GPU of its own."""
    if job.recipe.device != "cuda":
        return job
    device = f"cuda:{ranks.gpu}"
    return dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, device=device))
