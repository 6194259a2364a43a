"""An engine that serves a model: what it computes, what it showed, where it answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.artifacts.checkpoint import Severity
from harness.artifacts.costs import StoredWeights
from harness.errors import ReasonCode
from harness.processes import ProcessMark


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something that a deployment shows and a health check does not."""

    id: str
    """Stable and kebab-case, such as `parameter-not-filled`."""
    severity: Severity
    """ERROR: the deployment must not be released. WARNING: it is reported."""
    message: str
    reason: ReasonCode
    """The verdict's, where it is an error."""
    incident: str
    """The known failure that this is a sign of."""
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """Evidence that a deployment did not give: nothing is known to be wrong, nor to be right."""

    reason: ReasonCode
    """The verdict's, such as `load-not-reconciled`."""
    message: str
    """What is not known, and why, as a clause."""
    parts: tuple[str, ...] = ()
    """Declared parts of the arithmetic of which it is not known whether they are computed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """What an engine's loader took from a checkpoint's files."""

    num_tensors: int
    """In the files."""
    num_taken: int
    """Tensors of which at least one element reached a parameter."""
    num_set_aside: int
    """Tensors that this deployment leaves alone on purpose, such as a vision tower."""
    num_parameters: int
    """Of the engine's model, each expert's part of a fused one counted."""
    num_filled: int
    num_expert_scales: int = 0
    """Scales of one value that experts have in the files, where the kernels' were looked at."""
    num_own_expert_scales: int = 0
    """Those with which the kernels compute; the others were merged, rightly or not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """An engine that serves a model, and the arithmetic it really computes."""

    engine: str
    version: str
    model: str
    """Folder that is served."""
    checkpoint_digest: str
    """Digest of the model's files."""
    device: str
    """Such as `cpu` or `NVIDIA H200 (sm_90)`."""
    dtype: str
    """Of the arithmetic between quantized layers."""
    arguments: tuple[str, ...]
    kernels: Mapping[str, str]
    """What computes `linear`, `experts`, `attention`, `kv_cache`."""
    exercised: tuple[str, ...]
    """Parts of the checkpoint's arithmetic that are computed: `weights:nvfp4`, `inputs:nvfp4`,
    `kv:fp8`."""
    declared: tuple[str, ...]
    """The same, as the checkpoint declares them."""
    log: str | None
    tensor_parallel_size: int = 1
    """GPUs that the server is spread over."""
    loaded: Loaded | None = None
    """What the engine took from the files; None where it cannot be known."""
    findings: tuple[Finding, ...] = ()
    """What the engine said or did that it should not have."""
    not_observed: tuple[Gap, ...] = ()
    """What could not be looked at, so that the verdict does not hold for it."""
    address: str = ""
    """Where somebody else runs it, so that nothing is known but what it says; empty for ours."""
    stored: StoredWeights | None = None
    """The weight files that it serves; None where they are not at hand."""
    load_s: float | None = None
    """Seconds from its start until it could be asked; None of one that somebody else runs."""
    weights_memory_bytes: int | None = None
    """On its GPUs, as the engine says it; None where it does not."""

    @property
    def computed(self) -> str:
        """Return the arithmetic that is known to be computed, in words."""
        known = "not known" if self.address else "unquantized"
        return ", ".join(self.exercised) or known


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """A server that answers over HTTP, ours or somebody else's."""

    base_url: str
    """Such as `http://127.0.0.1:8123`, without `/v1`."""
    model: str
    """Name under which the server knows the model."""
    also_called: tuple[str, ...] = ()
    """Its other names, one of which its answers may have."""
    tokenizer: str
    """Folder of the tokenizer that the server uses."""
    max_model_len: int
    """Tokens of prompt and answer together that the server takes."""
    num_concurrent: int
    """Requests that are sent at once."""
    deployment: Deployment
    api_key_variable: str | None = None
    """Name of the environment variable that holds the API key; the key itself is never kept."""
    api_key: str | None = field(default=None, repr=False)
    """That of a server of ours, drawn when it was started; in memory alone."""
    process: ProcessMark | None = None
    """That of a server of ours: as long as it runs, nobody else answers in its place."""
    protocol: str = "completions"
    """`completions`, or `chat` for a server that has nothing else: no log-likelihoods there."""
    dialect: str = ""
    """Whose words beyond OpenAI's it understands: `vllm`, another engine's name, or nobody's."""
