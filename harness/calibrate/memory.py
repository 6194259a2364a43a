"""Keep to the memory that calibration may take, on a GPU and on the host.

A GPU's share is a limit of torch's allocator: what would go beyond it is out of memory, and the
batches are made smaller. Half of it is for what stays between layers; hidden states that do not fit
wait in pinned memory of the host. The host's own share is looked at after each layer, and whenever
hidden states go there.

Shapes: B samples of a batch, T tokens of a sample, H hidden size.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch
from torch import Tensor

from harness.artifacts import MemorySpec
from harness.errors import ReasonCode, StageError
from harness.models import gpu_index

_KEPT_SHARE = 0.5
"""Of a GPU's memory, for what stays between layers; the rest is for computing."""
_MOMENTS_SHARE = 0.6
"""Of the free memory, for sums that stay while a layer runs and while its weights are rounded."""
_GIB = 1 << 30


class Budget:
    """What may be taken of one device and of the host."""

    def __init__(self, spec: MemorySpec, device: str) -> None:
        """Take the bounds; nothing is limited yet."""
        self._spec, self._device = spec, torch.device(device)
        self._host_bytes = 0
        """The most that was found."""
        self._room_bytes = 0
        """Of the GPU, as far as others leave it."""

    @contextmanager
    def limited(self) -> Iterator[None]:
        """Limit what torch may allocate on the GPU in the context."""
        if self._device.type != "cuda":
            yield
            return
        torch.cuda.init()  # type: ignore[no-untyped-call]  # torch; the others need it done
        index = gpu_index(self._device)
        torch.cuda.reset_peak_memory_stats(index)
        free, total = torch.cuda.mem_get_info(index)
        asked = self._spec.gpu_bytes or total
        self._room_bytes = min(asked, free + torch.cuda.memory_reserved(index))
        torch.cuda.set_per_process_memory_fraction(min(1.0, asked / total), index)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, index)

    def has_room(self) -> bool:
        """Tell whether the device may keep what is on it until the next layer."""
        if self._device.type != "cuda":
            return True
        held = torch.cuda.memory_allocated(self._device)
        return held <= _KEPT_SHARE * self._room_bytes

    def check_moments(self, num_bytes: int) -> None:
        """Stop before anything runs where second moments of one layer's inputs have no room.

        Raises:
            StageError: they take more than most of the memory that is free.
        """
        room = self._room_bytes
        if self._device.type != "cuda":
            free = int(psutil.virtual_memory().available)
            room = min(free, self._spec.host_bytes or free)
        if num_bytes > _MOMENTS_SHARE * room:
            message = (
                f"the recipe's algorithm keeps {num_bytes / _GIB:.1f} GiB of second moments of one "
                f"decoder layer's inputs, and '{self._device}' has {room / _GIB:.1f} GiB free. "
                "Take local_hessian without gptq, exclude the experts, or allow more memory."
            )
            raise StageError(message, reason=ReasonCode.OUT_OF_MEMORY)

    def check_host(self) -> None:
        """Stop where the host's share is exceeded.

        Raises:
            StageError: more is taken than was allowed.
        """
        anonymous, bound = host_bytes(), self._spec.host_bytes
        self._host_bytes = max(self._host_bytes, anonymous)
        if bound is not None and (taken := anonymous + self._pinned("current")) > bound:
            message = (
                f"calibration takes {taken / _GIB:.2f} GiB of the host's memory, and --host-memory "
                f"allows {bound / _GIB:.2f} GiB. Lower --calib-size, or allow more."
            )
            raise StageError(message, reason=ReasonCode.OUT_OF_MEMORY)

    def report(self) -> str:
        """Say how much was taken, of the host as far as it was looked at."""
        most = max(self._host_bytes, host_bytes())
        host = f"{most / _GIB:.2f} GiB of the host's memory"
        if self._device.type != "cuda":
            return host
        peak = torch.cuda.max_memory_reserved(self._device) / _GIB
        pinned = self._pinned("peak") / _GIB
        return f"{peak:.2f} GiB of {self._device} at most, {host}, {pinned:.2f} GiB pinned at most"

    def _pinned(self, when: str) -> int:
        """Return the memory of the host that GPUs copy to, which systems do not call anonymous."""
        if self._device.type != "cuda":
            return 0
        return int(torch.cuda.host_memory_stats().get(f"allocated_bytes.{when}", 0))


class Activations:
    """The hidden states of all batches between two layers."""

    def __init__(self, budget: Budget, device: str) -> None:
        """Hold nothing yet."""
        self._budget, self._device = budget, torch.device(device)
        self._held_BTH: list[Tensor] = []

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._held_BTH)

    def copied(self) -> "Activations":
        """Return the same hidden states, which may be changed by themselves."""
        found = Activations(self._budget, str(self._device))
        for hidden_BTH in self._held_BTH:
            found.append(hidden_BTH.to(self._device, copy=True))
        return found

    def __iter__(self) -> Iterator[Tensor]:
        """Yield all of them on the device, in order."""
        return (hidden_BTH.to(self._device) for hidden_BTH in self._held_BTH)

    def append(self, hidden_BTH: Tensor) -> None:
        """Keep the hidden states of one more batch."""
        self._held_BTH.append(self._placed(hidden_BTH))

    def first(self) -> Tensor:
        """Return a copy of the first batch's hidden states on the device; they stay held."""
        return self._held_BTH[0].to(self._device, copy=True)

    def take(self, batch: int) -> Tensor:
        """Return a batch's hidden states on the device; they are not held any longer."""
        hidden_BTH, self._held_BTH[batch] = self._held_BTH[batch], torch.empty(0)
        return hidden_BTH.to(self._device, non_blocking=True)

    def put(self, batch: int, hidden_BTH: Tensor) -> None:
        """Keep the hidden states of a batch that was taken."""
        self._held_BTH[batch] = self._placed(hidden_BTH)

    def _placed(self, hidden_BTH: Tensor) -> Tensor:
        """Return them as they are, or on the host where the device has no room for them."""
        if self._budget.has_room():
            return hidden_BTH
        pinned = self._device.type == "cuda"
        on_host = torch.empty(hidden_BTH.shape, dtype=hidden_BTH.dtype, pin_memory=pinned)
        self._budget.check_host()
        return on_host.copy_(hidden_BTH, non_blocking=True)


def host_bytes(process: int | str = "self") -> int:
    """Return the anonymous memory of a process; pages of mapped files do not count."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    except OSError:  # not Linux, or it has ended: nothing is known
        return 0
    lines = (line.split() for line in status.splitlines())
    return next((int(words[1]) * 1024 for words in lines if words[:1] == ["RssAnon:"]), 0)
