"""What an engine says of itself, asked in its own environment before anything is made.

Each part is None where the engine could not say, with the reason in `unknown`: that is no refusal,
for what cannot be asked is observed when the engine has started.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Abilities:
    """What one installation of an engine can do, on the platform that it is for."""

    methods: frozenset[str] | None = None
    """Quantization methods, by the names that `quant_method` has in config.json."""
    quant_algos: frozenset[str] | None = None
    """Of modelopt's layout."""
    schemes: frozenset[str] | None = None
    """Of compressed-tensors' layout: names of classes."""
    linear_kernels: Mapping[str, tuple[str, ...]] | None = None
    """Those of linear layers that run on this machine, by format of weights, such as `nvfp4`."""
    expert_backends: Mapping[str, tuple[str, ...]] | None = None
    """Those of routed experts that it has names for, on any platform."""
    architectures: frozenset[str] | None = None
    by_transformers: frozenset[str] | None = None
    """Architectures that it can try to run with transformers' own code."""
    loaders: Mapping[str, str] | None = None
    """The class that loads each format of files."""
    flags: Mapping[str, frozenset[str]] | None = None
    """Options of its server, without dashes: the values that each takes; none for any value."""
    foretold: Mapping[str, Mapping[str, Mapping[str, object]]] | None = None
    """What would become of each declaration on the GPU here (foretold.py)."""
    adapters: frozenset[str] | None = None
    """Parts of harness's plugin that fit it."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Those that do not, with the reason."""
    mandatory: frozenset[str] = frozenset()
    """Those without which its server may not be started."""
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Why a part could not be asked, by its name."""

    def takes(self, flag: str, value: str | None = None) -> bool | None:
        """Return whether the server has an option, and takes a value for it; None if not known.

        Args:
            flag: with or without dashes.
            value: one of its choices.
        """
        if self.flags is None:
            return None
        choices = self.flags.get(flag.removeprefix("--"))
        if choices is None:
            return False
        return value is None or not choices or value in choices

    def knows(self, architecture: str) -> bool | None:
        """Return whether it has code for a model, its own or transformers'; None if not known."""
        if self.architectures is None:
            return None
        if architecture in self.architectures:
            return True
        return None if self.by_transformers is None else architecture in self.by_transformers


NOTHING_ASKED = Abilities()
"""Of an engine that was not asked."""
