"""What a text held, looked through once: nothing in it may break whoever follows or prints it."""

import math
from itertools import repeat

from harness.errors import UnreadableError
from harness.reading import bounds

_Container = dict[object, object] | list[object] | tuple[object, ...]
_CONTAINERS = (dict, list, tuple)
_LARGEST = 10**bounds.DIGITS


def refuse_beyond(
    value: object, where: str, *, infinity: bool = False, most: int | None = None
) -> None:
    """Refuse nesting, numbers and texts that are beyond the bounds.

    Args:
        value: of mappings, lists and scalars.
        where: the file, or what else the value was read from.
        infinity: whether infinite numbers may occur.
        most: values that there may be, one that occurs in several places counted in each.

    Raises:
        UnreadableError: with what is wrong.
    """
    level: list[_Container] = [[value]]
    depth, count = -1, 0
    while level:
        depth += 1
        if depth > bounds.DEPTH:
            raise UnreadableError(where, f"is nested more than {bounds.DEPTH} levels deep")
        count += sum(map(len, level))
        if most is not None and count > most:
            raise UnreadableError(where, f"holds more than {most} values, aliases written out")
        level = [inner for outer in level for inner in _containers(outer, where, infinity=infinity)]


def _containers(outer: _Container, where: str, *, infinity: bool) -> list[_Container]:
    """Return the containers among the values of one, whose other values and keys are looked at.

    Most values are plain: an index has 62,000 ASCII texts twice, a calibration as many token ids.
    """
    found: list[_Container] = []
    pairs = outer.items() if isinstance(outer, dict) else zip(repeat(None), outer)
    for key, value in pairs:
        if key is not None and not (type(key) is str and key.isascii()):
            _check_scalar(key, f"{where}, in a key,", infinity=infinity)
        if type(value) is int and -_LARGEST < value < _LARGEST:
            continue
        if isinstance(value, _CONTAINERS):
            found.append(value)
        elif not (type(value) is str and value.isascii()):
            _check_scalar(value, where, of=key, infinity=infinity)
    return found


def _check_scalar(value: object, where: str, *, of: object = None, infinity: bool) -> None:
    if isinstance(value, str):
        if not value.isascii():
            _check_text(value, where)
    elif isinstance(value, float):
        if not math.isfinite(value) and not (infinity and math.isinf(value)):
            raise UnreadableError(where, f"holds {_spell(value)}{_at(of)}, which is no number")
    elif isinstance(value, int) and not -_LARGEST < value < _LARGEST:
        why = f"holds a whole number of more than {bounds.DIGITS} digits{_at(of)}"
        raise UnreadableError(where, why)


def _check_text(value: str, where: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UnreadableError(where, "holds half of a surrogate pair, which is no text") from error


def _spell(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _at(key: object) -> str:
    return "" if key is None else f" as '{str(key)[:80]}'"
