"""What a GO buys, in plain words: how much smaller, how much faster, how long answers are."""

from harness.artifacts import LengthVerdict, SizeVerdict, SpeedVerdict

_ALIKE = 0.005
"""A ratio that is nearer to 1 is said to be the same."""


def bought(
    size: SizeVerdict | None, speed: SpeedVerdict | None, length: LengthVerdict | None
) -> str:
    """Return the end of a sentence, `3.4 times smaller, answers 1 % shorter`; it may be empty.

    A speed stands in it only where it is known and says something of a deployment.
    """
    parts = [_size(size)] if size else []
    if speed is not None and speed.ratio is not None and speed.is_claim:
        parts.append(f"{speed.ratio:.1f} times the tokens a second")
    if length is not None:
        parts.append(_length(length))
    return ", ".join(parts)


def _size(size: SizeVerdict) -> str:
    times = size.times_smaller
    if abs(times - 1) < _ALIKE:
        return "as large"
    return f"{times:.1f} times smaller" if times > 1 else f"{1 / times:.2f} times as large"


def _length(length: LengthVerdict) -> str:
    change = length.ratio - 1
    if abs(change) < _ALIKE:
        return "answers as long"
    return f"answers {abs(change):.0%} {'longer' if change > 0 else 'shorter'}".replace("%", " %")
