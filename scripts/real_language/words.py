"""Read WordNet's nouns: words, what they mean, and what they are a kind of.

Source: the manual pages wndb(5WN) and cntlist(5WN) of WordNet 3.0.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

_LICENSE = "  "
"""Begins the lines of the license, which stand before the entries."""
_HYPERNYM = "@"


class Noun(NamedTuple):
    """One meaning."""

    offset: str
    """What other entries name it by."""
    words: tuple[str, ...]
    """That have this meaning, the most usual one first."""
    definition: str
    field: str
    """Number of the lexicographer's file, such as that of all animals."""
    kinds: tuple[str, ...]
    """Offsets of what it is a kind of."""

    @property
    def word(self) -> str:
        """The most usual word."""
        return self.words[0]


def nouns(folder: Path) -> Mapping[str, Noun]:
    """Return every noun by its offset, in the order of the file."""
    with (folder / "data.noun").open(encoding="utf-8") as lines:
        found = [_noun(line) for line in lines if not line.startswith(_LICENSE)]
    return {noun.offset: noun for noun in found}


def uses(folder: Path) -> Mapping[str, int]:
    """Return how often each word was met in the texts that WordNet counted."""
    counts: Counter[str] = Counter()
    with (folder / "cntlist.rev").open(encoding="utf-8") as lines:
        for line in lines:
            key, _, number = line.split()
            counts[key.partition("%")[0]] += int(number)
    return counts


def _noun(line: str) -> Noun:
    entry, _, gloss = line.partition("|")
    fields = iter(entry.split())
    offset, field, _ = next(fields), next(fields), next(fields)
    words = tuple(_pairs_first(fields, int(next(fields), 16)))
    kinds = tuple(_kinds(fields, int(next(fields))))
    return Noun(offset, words, gloss.partition(";")[0].strip(), field, kinds)


def _pairs_first(fields: Iterator[str], number: int) -> Iterator[str]:
    """Yield the words; behind each stands its number in the lexicographer's file."""
    for _ in range(number):
        yield next(fields).replace("_", " ")
        next(fields)


def _kinds(fields: Iterator[str], number: int) -> Iterator[str]:
    for _ in range(number):
        symbol, offset, _part, _words = (next(fields) for _ in range(4))
        if symbol == _HYPERNYM:
            yield offset
