"""The table: one row a family, with the first reason where something does not hold."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scripts.family_table import answers, ours
from scripts.family_table.measure import UNQUANTIZED, Place, not_loaded

_MARKS = ("<!-- families: begin -->", "<!-- families: end -->")
_LONGEST = 300
YES, NO, UNASKABLE, NOT_ASKED = "yes", "no", "-", ""
HEAD = ("family", "quantized", "verified", "as the peer", "loaded by vLLM", "answers there", "s")


class Cell(NamedTuple):
    """What one column says, and why."""

    text: str
    why: str = ""


def line(place: Place) -> str:
    """Return a family's row as one line, with reasons."""
    cells = cells_of(place)
    reasons = "; ".join(dict.fromkeys(cell.why for cell in cells if cell.why))
    return f"{place.name:<28} {' | '.join(f'{cell.text:<4}' for cell in cells)}  {reasons}"[:400]


def markdown(places: Sequence[Place]) -> str:
    """Return the table, the counts above it and the reasons below."""
    rows = [(place, cells_of(place)) for place in places]
    counts = [
        f"{sum(cells[index].text == YES for _, cells in rows)} {HEAD[index + 1]}"
        for index in range(len(HEAD) - 2)
    ]
    minutes = sum(map(seconds_of, places)) / 60
    lines = [
        f"{len(rows)} families: {', '.join(counts)}. All of it took {minutes:.0f} minutes.",
        "",
    ]
    lines += [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    notes: list[str] = []
    for place, cells in rows:
        why = [cell.why for cell in cells if cell.why]
        said = " ".join("; ".join(dict.fromkeys(why)).replace(f"{place.work}/", "").split())
        notes += [f"- {place.name}: {said[:_LONGEST]}"] if why else []
        texts = [cell.text for cell in cells]
        lines.append(f"| {' | '.join((place.name, *texts, f'{seconds_of(place):.0f}'))} |")
    return "\n".join([*lines, "", *notes])


def write(text: str, path: Path) -> None:
    """Put the table between the marks of a Markdown file."""
    whole = path.read_text(encoding="utf-8")
    before, _, rest = whole.partition(_MARKS[0])
    _, _, after = rest.partition(_MARKS[1])
    path.write_text(f"{before}{_MARKS[0]}\n{text}\n{_MARKS[1]}{after}", encoding="utf-8")


def cells_of(place: Place) -> list[Cell]:
    """Return what each column says of a family."""
    return [_quantized(place), _verified(place), _parity(place), _loaded(place), _answers(place)]


def seconds_of(place: Place) -> float:
    """Return the time that all answers together took."""
    found = [place.read(path.stem) for path in place.folder.glob("*.json")]
    return sum(float((one or {}).get("seconds", 0)) for one in found)


def _ways(place: Place) -> dict[str, Any]:
    ways: dict[str, Any] = {}
    for qformat in ours.FORMATS:
        found = place.read(f"quantized-{qformat}") or {}
        if found.get("error"):
            ways[qformat] = {"error": found["error"]}
        ways |= {f"{qformat} {way}": told for way, told in found.get("ways", {}).items()}
    return ways


def _quantized(place: Place) -> Cell:
    """Every format, layout and way, all to the same bytes."""
    made = place.read("made") or {}
    if made.get("error"):
        return Cell(NO, f"not made: {made['error']}")
    ways = _ways(place)
    for way, told in ways.items():
        if told["error"]:
            return Cell(NO, f"{way}: {told['error']}")
        if told["different"]:
            return Cell(NO, f"{way} differs in {told['different'][0]}")
    return Cell(YES if ways else NOT_ASKED)


def _verified(place: Place) -> Cell:
    for way, told in (ways := _ways(place)).items():
        if told["error"]:
            return Cell(NO)
        if told["verify"]:
            return Cell(NO, f"{way}: verify: {told['verify']}")
    return Cell(YES if ways else NOT_ASKED)


def _parity(place: Place) -> Cell:
    cells = [_parity_in(place, qformat) for qformat in ours.FORMATS]
    worst = next((cell for cell in cells if cell.text != YES), None)
    return worst or Cell(YES, "; ".join(dict.fromkeys(cell.why for cell in cells if cell.why)))


def _parity_in(place: Place, qformat: str) -> Cell:
    theirs, found = place.read(f"peer-{qformat}"), place.read(f"parity-{qformat}")
    if theirs is None:
        return Cell(NOT_ASKED)
    if theirs["error"]:
        return Cell(UNASKABLE, f"the peer on {qformat}: {theirs['error'][:160]}")
    if found is None or found["error"]:
        return Cell(NO, f"parity {qformat}: {found['error']}" if found else "")
    if found["num_different"]:
        what = f"{found['num_different']} of {found['compared']}, first {found['different'][0]}"
        return Cell(NO, f"{qformat} differs from the peer in {what}")
    return Cell(YES, "; ".join(_departures(found, qformat)))


def _departures(found: Mapping[str, Any], qformat: str) -> Iterator[str]:
    """Yield where the peer does something else, and both may be right."""
    if found["wider"]:
        yield f"the peer gives {found['wider']} layers a wider range in {qformat}"
    if found["num_peer_lacks"]:
        yield f"the peer lacks {found['num_peer_lacks']}, such as {found['peer_lacks'][0]}"
    if more := found["quantized_by_peer_alone"]:
        yield f"the peer alone quantizes {more[0].removesuffix('.weight')}"


def _loaded(place: Place) -> Cell:
    known = place.read(f"vllm-{UNQUANTIZED}")
    if known is None:
        return Cell(NOT_ASKED)
    if known["error"]:
        return Cell(UNASKABLE, f"vLLM on the model itself: {known['error'][:160]}")
    cells = [_loaded_in(place, qformat) for qformat in ours.FORMATS]
    worst = (NO, NOT_ASKED, UNASKABLE)
    return next((cell for text in worst for cell in cells if cell.text == text), Cell(YES))


def _loaded_in(place: Place, qformat: str) -> Cell:
    if place.read(f"vllm-{qformat}") is None:
        return Cell(NOT_ASKED if place.checkpoint(qformat).is_dir() else NO)
    if (why := not_loaded(place, qformat)) is None:
        return Cell(YES)
    theirs = not_loaded(place, f"peer-{qformat}")
    if theirs and _parity_in(place, qformat).text == YES:
        return Cell(UNASKABLE, f"vLLM on the peer's {qformat}, equal to ours: {theirs[:200]}")
    return Cell(NO, f"vLLM on {qformat}: {why[:200]}")


def _answers(place: Place) -> Cell:
    """As near to the reference engine as rounding allows, in both formats."""
    plain = _both(place, UNQUANTIZED)
    if plain is None:
        return Cell(NOT_ASKED if place.read(f"vllm-{UNQUANTIZED}") is None else UNASKABLE)
    for qformat in ours.FORMATS:
        both = _both(place, qformat)
        if both is None:
            return Cell(_loaded(place).text)
        rounded = place.read(f"rounded-{qformat}") or {"error": "not asked"}
        rounding = answers.distance(*plain)
        if not rounded["error"]:
            rounding = max(rounding, answers.distance(both[0], rounded))
        apart = answers.distance(*both)
        if not answers.is_near(apart, rounding):
            why = f"answers of {qformat} are {apart:.3f} apart, rounding makes {rounding:.3f}"
            return Cell(NO, why)
    return Cell(YES)


def _both(place: Place, what: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return the answers of the reference engine and of vLLM, None where one has none."""
    mine, theirs = place.read(f"reference-{what}"), place.read(f"vllm-{what}")
    if mine is None or theirs is None or mine["error"] or theirs["error"]:
        return None
    return mine, theirs
