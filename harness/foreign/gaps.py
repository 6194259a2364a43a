"""What a tool's records do not show of an arm, as the gate takes it."""

from harness.artifacts import Gap
from harness.errors import ReasonCode


def unseen(place: str, tool: str, *, endings: bool) -> tuple[Gap, ...]:
    """Return what is not known of an arm that another tool scored.

    Args:
        place: where its records lie.
        tool: that wrote them.
        endings: whether it is not recorded either how answers ended.
    """
    loaded = Gap(
        reason=ReasonCode.LOAD_NOT_RECONCILED,
        message=f"nothing in '{place}' shows which files answered, nor that all were loaded",
    )
    kernels = Gap(
        reason=ReasonCode.KERNELS_UNKNOWN,
        message=f"{tool} does not record which kernels computed '{place}'",
    )
    ended = Gap(
        reason=ReasonCode.ENDINGS_UNKNOWN,
        message=f"{tool} does not record in '{place}' which prompts or answers were cut",
    )
    return (loaded, kernels, ended) if endings else (loaded, kernels)
