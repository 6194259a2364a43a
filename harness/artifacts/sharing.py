"""Two servers on one device."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerShare:
    """What one of two servers may take that run at once on the same device."""

    kv_bytes: int = 0
    """Of each GPU, for keys and values; the same for both. 0 where they are on no GPU."""
    utilization: float = 0.0
    """Share of a GPU's memory that must be free for one to start."""
    requests: int = 0
    """Answered at once at most: some models keep a state for each that may be."""
    cores: tuple[int, ...] = ()
    """Of the CPU, that its threads are bound to; empty where they are on a GPU."""
