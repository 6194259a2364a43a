"""What answers look like on the surface: does the text repeat, swing between scripts, end early?

None of these sees word salad in one language, and none has a limit of its own: natural code and
lists repeat too. Both arms answer the same prompts, so the baseline says what is normal.
"""

import math
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Sequence
from functools import cache

_GRAM = 4
_FEW_WORDS = 8
"""Below this many words a text is looked at letter by letter."""
_WORD = re.compile(r"\S+")
_BAD_CATEGORIES = ("Cc", "Cn", "Co", "Cs")
_PLAIN_CONTROLS = "\n\t\r"
Texts = Sequence[str]


def repetition(texts: Texts) -> float:
    """Return the share of 4-grams that came before in the same text (rep-4).

    Source: Welleck et al. 2019, arXiv 1908.04319.
    """
    return _mean([_repeated(_units(text)) for text in texts])


def compression(texts: Texts) -> float:
    """Return the bytes of the texts over their compressed bytes: high where they loop."""
    raw = "\n".join(texts).encode()
    return len(raw) / len(zlib.compress(raw, 9)) if raw else 1.0


def script_entropy(texts: Texts) -> float:
    """Return the entropy of the letters' scripts, in bits: high for salad of many languages."""
    letters = Counter(_script(c) for text in texts for c in text if c.isalpha())
    total = letters.total()
    return sum(n / total * math.log2(total / n) for n in letters.values()) if total else 0.0


def dominance(texts: Texts) -> float:
    """Return the share that the commonest word of a text has in it, or its commonest letter."""
    return _mean([_dominant(_units(text)) for text in texts])


def empties(texts: Texts) -> float:
    """Return the share of texts that say nothing."""
    return _mean([float(not text.strip()) for text in texts])


def length(texts: Texts) -> float:
    """Return the mean number of characters."""
    return _mean([float(len(text)) for text in texts])


def garbage(texts: Texts) -> float:
    """Return the share of characters that no text has: replaced, unassigned, control."""
    letters = "".join(texts)
    return sum(map(_is_bad, letters)) / len(letters) if letters else 0.0


def _units(text: str) -> list[str]:
    words = _WORD.findall(text)
    return words if len(words) >= _FEW_WORDS else list(text)


def _repeated(units: list[str]) -> float:
    grams = [tuple(units[i : i + _GRAM]) for i in range(len(units) - _GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _dominant(units: list[str]) -> float:
    return max(Counter(units).values()) / len(units) if len(units) >= _FEW_WORDS else 0.0


def _is_bad(letter: str) -> bool:
    is_odd = unicodedata.category(letter) in _BAD_CATEGORIES
    return letter == "\ufffd" or (is_odd and letter not in _PLAIN_CONTROLS)


@cache
def _script(letter: str) -> str:
    return unicodedata.name(letter, "UNKNOWN").split(" ")[0].split("-")[0]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
