"""What differs between two records, field by field, and between two lists of rules."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher

from harness.artifacts import Difference, Part, Rule, to_json

_GROUPS = ("started.", "packages.", "suite.")
WHOLE = "all of it"
"""In the place of a value that holds others, where only one run has it."""
_SHOWN = 160
"""Characters of a value."""


def field_differences(part: Part, a: object, b: object) -> list[Difference]:
    """Return each field that differs, with its path, such as `settings.size`.

    What only one of them has is said once, however much is in it.
    """
    return [
        Difference(part=part, what=_named(path), a=left, b=right)
        for path, left, right in _walk(to_json(a), to_json(b), "")
    ]


def _walk(a: object, b: object, path: str) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield the path and both values of each leaf that differs; None where one has no such."""
    left, right = _entries(a), _entries(b)
    if left is None or right is None:
        if a != b:
            yield path, spelled(a), spelled(b)
        return
    for key in dict.fromkeys((*left, *right)):
        inner = f"{path}.{key}" if path else key
        if key in left and key in right:
            yield from _walk(left[key], right[key], inner)
        else:
            holder = left if key in left else right
            said = spelled(holder[key]) if _entries(holder[key]) is None else WHOLE
            yield (inner, said, None) if key in left else (inner, None, said)


def _entries(value: object) -> Mapping[str, object] | None:
    """Return what a value holds, by name or number; None where it is a leaf."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, list) and value and all(isinstance(v, dict | list) for v in value):
        named = [v.get("name", i) if isinstance(v, dict) else i for i, v in enumerate(value)]
        return dict(zip(map(str, named), value, strict=True))
    return None


def _named(path: str) -> str:
    """Return a path without the word under which alone it stands."""
    return path.partition(".")[2] if path.startswith(_GROUPS) else path


def spelled(value: object) -> str:
    """Return a value as a reader knows it, cut where it is long."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    if value is None or not text:
        return "none"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def rule_differences(a: Sequence[Rule], b: Sequence[Rule]) -> list[Difference]:
    """Return what differs between two lists of rules, of which the last that matches wins.

    Rules are numbered as in the list that holds them; one that is in both at another place is said
    to be moved, for its place decides.
    """
    left = [(rule.quantizer, rule.format) for rule in a]
    right = [(rule.quantizer, rule.format) for rule in b]
    found: list[Difference] = []
    for kind, a0, a1, b0, b1 in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if kind != "equal":
            found += _block(left[a0:a1], right[b0:b1], a0, b0)
    return found


def _block(
    left: Sequence[tuple[str, str]], right: Sequence[tuple[str, str]], a0: int, b0: int
) -> Iterator[Difference]:
    """Yield what became of some rules in the place of which others stand.

    A rule on the same quantizers is the same rule; where as many are left on both sides, each
    stands in the place of one.
    """
    theirs = {quantizer: (b0 + index + 1, to) for index, (quantizer, to) in enumerate(right)}
    ours = {quantizer: (a0 + index + 1, form) for index, (quantizer, form) in enumerate(left)}
    for quantizer in [q for q in ours if q in theirs]:
        (number, form), (place, to) = ours.pop(quantizer), theirs.pop(quantizer)
        yield _of_rule(
            f"rule {number}, {quantizer}", form, to if to != form else f"{to}, as rule {place}"
        )
    if len(ours) == len(theirs):
        for (quantizer, (number, form)), (other, (_, to)) in zip(
            ours.items(), theirs.items(), strict=True
        ):
            yield _of_rule(f"rule {number}", f"{quantizer} {form}", f"{other} {to}")
        return
    yield from (_of_rule(f"rule {n}, {q}", form, None) for q, (n, form) in ours.items())
    yield from (_of_rule(f"rule {n}, {q}", None, form) for q, (n, form) in theirs.items())


def _of_rule(what: str, a: str | None, b: str | None) -> Difference:
    return Difference(part=Part.RECIPE, what=what, a=a, b=b)
