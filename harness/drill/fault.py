"""What a known fault is: a name, the incident it comes from, and how it is put back."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from harness.drill.tampering import Files

VLLM = "https://github.com/vllm-project/vllm/"
LLMCOMPRESSOR = "https://github.com/vllm-project/llm-compressor/"
MODELOPT = "https://github.com/NVIDIA/Model-Optimizer/"


class Kind(StrEnum):
    """Where the fault strikes."""

    RECIPE = "recipe"
    CALIBRATION = "calibration"
    EXPORT = "export"
    FILE = "file"
    ENGINE = "engine"


@dataclass(frozen=True, kw_only=True, slots=True)
class DrillFormat:
    """A format whose correct run must get GO."""

    name: str
    qformat: str
    kv_cache: str = "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class FileFault:
    """A fault of a finished checkpoint, as a faulty tool or a bad disk would leave it.

    It strikes just after the export: the run goes on with a spoiled copy of the checkpoint that
    the correct run has written.
    """

    name: str
    incident: str
    """Where it happened, or what it is an example of."""
    what: str
    """One line."""
    spoil: Callable[[Files], None]
    format: str = "nvfp4"
    """Of the checkpoint that is spoiled."""

    @property
    def kind(self) -> Kind:
        """Return where it strikes."""
        return Kind.FILE


def no_options(folder: Path) -> Mapping[str, object]:
    """Change nothing of what is typed."""
    del folder
    return {}


class Faults:
    """The faults of finished checkpoints that a module declares: decorates what puts each there."""

    def __init__(self) -> None:
        self.declared: list[FileFault] = []

    def __call__(
        self, incident: str, what: str, *, name: str = "", of: str = "nvfp4"
    ) -> Callable[[Callable[[Files], None]], FileFault]:
        """Return a decorator for a fault that is called like the function, `of` that format."""

        def declare(spoil: Callable[[Files], None]) -> FileFault:
            called = name or spoil.__name__.strip("_").replace("_", "-")
            fault = FileFault(name=called, incident=incident, what=what, spoil=spoil, format=of)
            self.declared.append(fault)
            return fault

        return declare


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFault:
    """A fault while a checkpoint is made or served; it strikes within `harness e2e`."""

    name: str
    incident: str
    what: str
    kind: Kind
    during: Callable[[], AbstractContextManager[object]] = nullcontext
    """Context in which a part of harness is as wrong as it was in the incident."""
    options: Callable[[Path], Mapping[str, object]] = no_options
    """Fields of the Request that differ from a correct run's; files for it go into the folder."""
    format: str = "nvfp4"


Fault = FileFault | RunFault
