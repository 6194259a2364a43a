"""The canary's language: short questions whose answers a program can check.

What it holds: one seeded maker for each kind of question, and from these the training windows,
the calibration texts and the held-aside texts. Why questions of graded difficulty: a model that is
right everywhere has no room to show the small loss that quantization costs, so each kind comes in
levels (digits, letters, statements, how often a fact was seen) and the tasks pick the levels they
need. Every kind but the facts is split by a hash of the question: a held-out question is never
trained on. Facts are random, so they can only be remembered; a tier says how often training repeats
them. What it leaves out: torch and lm-eval. This module is plain Python; equal seeds, equal text.
The shipped weights were trained on exactly this text: a change of a maker, a list or a share here
is a change of the language, and calls for training again.
"""
# ruff: noqa: S311 -- seeded pseudo-random numbers are the purpose.

import hashlib
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from types import MappingProxyType

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
FIRST_SPECIAL_ID = 256  # ids 0 to 255 are the bytes themselves
WINDOW_TOKENS = 192
CHAT_SHARE = 0.06
HELD_OUT_SHARE = 0.1
DRAWS_PER_ITEM = 1000
HALF = 0.5
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SYLLABLES = tuple(c + v for c in "bcdfghjklmnprstv" for v in "aeiou")
RELATIONS = ("home", "boss", "pet", "food", "song")
COLORS = ("red", "blue", "green", "gold", "pink", "gray", "black", "white")
THINGS = (
    *("kite", "drum", "boat", "ring", "shoe", "lamp"),
    *("coin", "hat", "book", "cup", "bell", "key"),
)
PEOPLE = ("farmer", "fox", "baker", "owl", "nurse", "bear", "sailor", "cat")
MOODS = ("happy", "brave", "quiet", "hungry", "clever", "sleepy")
PLACES = ("market", "river", "forest", "harbor", "castle", "garden")


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One question with its only right answer."""

    prompt: str
    answer: str
    choices: tuple[str, ...] = ()
    """Every answer offered, the right one among them; empty when the answer is to be written."""
    key: str = ""
    """What the hash split looks at, so that 3+5 and 5+3 fall together; empty means the prompt."""
    ending: str = "\n"

    @property
    def text(self) -> str:
        """Return the line that training shows."""
        return f"{self.prompt} {self.answer}{self.ending}"

    @property
    def chat(self) -> str:
        """Return the same exchange as the chat template renders it."""
        question = self.prompt.removeprefix("Q: ").removesuffix(" A:")
        return (
            f"<|im_start|>user\n{question}<|im_end|>\n"
            f"<|im_start|>assistant\n{self.answer}<|im_end|>\n"
        )


def _ask(question: str, answer: str, choices: tuple[str, ...] = (), key: str = "") -> Item:
    return Item(prompt=f"Q: {question}? A:", answer=answer, choices=choices, key=key)


def _number(rng: random.Random, digits: int) -> int:
    return rng.randrange(10 ** (digits - 1), 10**digits)


def _word(rng: random.Random, num_letters: int) -> str:
    return "".join(rng.choices(LETTERS, k=num_letters))


# Kind "fact". Level = tier: 0 is repeated most often.
FACTS_PER_TIER = (1024, 2048, 4096, 8192, 16384)


@cache
def facts() -> tuple[tuple[Item, ...], ...]:
    """Draw every fact, a tuple for each tier; names are unique over all tiers."""
    rng = random.Random("facts")
    num_syllables = len(SYLLABLES)
    codes = iter(rng.sample(range(num_syllables**3), sum(FACTS_PER_TIER)))
    tiers = []
    for num_facts in FACTS_PER_TIER:
        tier = []
        for code in (next(codes) for _ in range(num_facts)):
            rest, third = divmod(code, num_syllables)
            first, second = divmod(rest, num_syllables)
            name = SYLLABLES[first] + SYLLABLES[second] + SYLLABLES[third]
            place = rng.choice(SYLLABLES) + rng.choice(SYLLABLES)
            tier.append(_ask(f"{rng.choice(RELATIONS)} of {name}", place))
        tiers.append(tuple(tier))
    return tuple(tiers)


def fact(rng: random.Random, tier: int) -> Item:
    """Draw one of the fixed facts."""
    return rng.choice(facts()[tier])


def add(rng: random.Random, digits: int) -> Item:
    """Add two numbers."""
    a, b = _number(rng, digits), _number(rng, digits)
    return _ask(f"{a}+{b}", str(a + b), key=f"{min(a, b)}+{max(a, b)}")


def multiply(rng: random.Random, digits: int) -> Item:
    """Multiply a number by one digit."""
    a, b = _number(rng, digits), rng.randrange(2, 10)
    return _ask(f"{a}*{b}", str(a * b))


def reverse(rng: random.Random, num_letters: int) -> Item:
    """Write a word backwards."""
    word = _word(rng, num_letters)
    return _ask(f"reverse {word}", word[::-1])


def sort(rng: random.Random, num_letters: int) -> Item:
    """Write the letters of a word in the order of the alphabet."""
    word = _word(rng, num_letters)
    return _ask(f"sort {word}", "".join(sorted(word)))


def compare(rng: random.Random, digits: int) -> Item:
    """Name the larger of two numbers; half of the pairs share their first digit."""
    a = _number(rng, digits)
    b = a
    while b == a:
        b = _number(rng, digits)
        if rng.random() < HALF:
            b = int(str(a)[0] + str(b)[1:])
    choices = (str(a), str(b))
    key = f"{min(a, b)},{max(a, b)}"
    return _ask(f"larger of {a} and {b}", str(max(a, b)), choices=choices, key=key)


def count(rng: random.Random, num_letters: int) -> Item:
    """Count a letter in a word."""
    letter = rng.choice(LETTERS)
    wanted = rng.randrange(1, min(9, num_letters - 1) + 1)
    others = LETTERS.replace(letter, "")
    word = [letter] * wanted + rng.choices(others, k=num_letters - wanted)
    rng.shuffle(word)
    first = max(0, min(wanted - rng.randrange(4), 6))
    choices = tuple(str(number) for number in range(first, first + 4))
    return _ask(f"count {letter} in {''.join(word)}", str(wanted), choices=choices)


def program(rng: random.Random, num_statements: int) -> Item:
    """Run assignments modulo ten and say the last value."""
    values = [rng.randrange(10)]
    lines = [f"a={values[0]}"]
    for index in range(1, num_statements):
        source = rng.randrange(index)
        sign = rng.choice((1, -1))
        if index > 1 and rng.random() < HALF:
            other = rng.randrange(index)
            operand, shown = values[other], LETTERS[other]
        else:
            operand = rng.randrange(1, 10)
            shown = str(operand)
        values.append((values[source] + sign * operand) % 10)
        lines.append(f"{LETTERS[index]}={LETTERS[source]}{'+' if sign > 0 else '-'}{shown}")
    return _ask(f"{' '.join(lines)} {LETTERS[num_statements - 1]}", str(values[-1]))


def story(rng: random.Random, num_people: int) -> Item:
    """Remember who found what: the last sentence of a little story."""
    names = set[str]()
    while len(names) < num_people:
        names.add((rng.choice(SYLLABLES) + rng.choice(SYLLABLES)).title())
    people = sorted(names)
    rng.shuffle(people)
    things = rng.sample(THINGS, num_people)
    finds = [f"{rng.choice(COLORS)} {thing}" for thing in things]
    opening = " ".join(f"{name} found a {find}." for name, find in zip(people, finds, strict=True))
    who = rng.randrange(num_people)
    return Item(
        prompt=f"{opening} At night {people[who]} dreamt of the",
        answer=finds[who],
        choices=tuple(finds),
        ending=".\n",
    )


def tale(rng: random.Random, num_days: int) -> Item:
    """Tell a longer story with no question in it: plain text for perplexity and coherence."""
    name = (rng.choice(SYLLABLES) + rng.choice(SYLLABLES)).title()
    who, mood = rng.choice(PEOPLE), rng.choice(MOODS)
    lines = [f"Once there was a {mood} {who} named {name}."]
    for _ in range(num_days):
        find = f"{rng.choice(COLORS)} {rng.choice(THINGS)}"
        lines.append(f"One day {name} went to the {rng.choice(PLACES)} and found a {find}.")
    return Item(prompt=" ".join(lines), answer=f"{name} was a {mood} {who}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A kind of question, its levels, and the share of training lines at each level."""

    make: Callable[[random.Random, int], Item]
    levels: tuple[int, ...]
    share_per_level: tuple[float, ...]


def _even(levels: range, share: float) -> tuple[float, ...]:
    return (share / len(levels),) * len(levels)


def _kind(make: Callable[[random.Random, int], Item], levels: range, share: float) -> Kind:
    return Kind(make=make, levels=tuple(levels), share_per_level=_even(levels, share))


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "fact": Kind(make=fact, levels=(0, 1, 2, 3, 4), share_per_level=(0.10, *(0.06,) * 4)),
        "add": _kind(add, range(2, 6), 0.14),
        "multiply": _kind(multiply, range(2, 5), 0.10),
        "reverse": _kind(reverse, range(4, 15), 0.08),
        "sort": _kind(sort, range(4, 15), 0.08),
        "compare": _kind(compare, range(2, 5), 0.04),
        "count": _kind(count, range(6, 19, 3), 0.06),
        "program": _kind(program, range(2, 8), 0.09),
        "story": _kind(story, range(2, 6), 0.05),
        "tale": _kind(tale, range(1, 3), 0.02),
    }
)
_CELLS = tuple((name, level) for name, kind in KINDS.items() for level in kind.levels)
_CUMULATIVE_SHARES = tuple(accumulate(s for kind in KINDS.values() for s in kind.share_per_level))


def is_held_out(kind: str, item: Item) -> bool:
    """Say whether an item belongs to the tenth of its kind that training never sees."""
    if kind == "fact":
        return False
    digest = hashlib.blake2b(f"{kind}:{item.key or item.prompt}".encode(), digest_size=4).digest()
    return int.from_bytes(digest) < HELD_OUT_SHARE * 2**32


def training_item(rng: random.Random) -> Item:
    """Draw one item of the training mix."""
    while True:
        (kind, level), *_ = rng.choices(_CELLS, cum_weights=_CUMULATIVE_SHARES)
        item = KINDS[kind].make(rng, level)
        if not is_held_out(kind, item):
            return item


def eval_items(kind: str, levels: tuple[int, ...], num_items: int) -> tuple[Item, ...]:
    """Draw distinct items for scoring, as many of each level as possible, held out unless facts.

    Facts are the first of their tier, so that calibration can use the others.

    Raises:
        ValueError: the levels hold fewer distinct held-out items than asked for.
    """
    if kind == "fact":
        per_tier = -(-num_items // len(levels))
        chosen = [item for tier in levels for item in facts()[tier][:per_tier]]
        return tuple(chosen[:num_items])
    rng = random.Random(f"eval {kind} {levels}")
    found: dict[str, Item] = {}
    for _ in range(DRAWS_PER_ITEM * num_items):
        item = KINDS[kind].make(rng, levels[len(found) % len(levels)])
        if is_held_out(kind, item):
            found.setdefault(item.prompt, item)
        if len(found) == num_items:
            return tuple(found.values())
    message = f"{kind} {levels} has fewer than {num_items} held-out items. Ask for fewer."
    raise ValueError(message)


def encode(text: str) -> list[int]:
    """Turn text into token ids: bytes, and one id for each special token."""
    pattern = "(" + "|".join(re.escape(token) for token in SPECIAL_TOKENS) + ")"
    ids: list[int] = []
    for part in re.split(pattern, text):
        if part in SPECIAL_TOKENS:
            ids.append(FIRST_SPECIAL_ID + SPECIAL_TOKENS.index(part))
        else:
            ids.extend(part.encode())
    return ids


def training_window(rng: random.Random, num_tokens: int = WINDOW_TOKENS) -> list[int]:
    """Fill one training row with whole items; only the last one is cut."""
    is_chat = rng.random() < CHAT_SHARE
    ids: list[int] = []
    while len(ids) < num_tokens:
        item = training_item(rng)
        ids.extend(encode(item.chat) if is_chat else item.text.encode())
    return ids[:num_tokens]


def calibration_texts(num_texts: int, avoid: frozenset[str]) -> Iterator[str]:
    """Yield texts of 1 to 8 training items that fit one window, without the prompts in `avoid`."""
    rng = random.Random("calibration")
    for _ in range(num_texts):
        is_chat = rng.random() < CHAT_SHARE
        wanted = 1 if is_chat else rng.randrange(1, 9)
        text = ""
        for _ in range(wanted):
            item = training_item(rng)
            while item.prompt in avoid:
                item = training_item(rng)
            line = item.chat if is_chat else item.text
            if text and len(text) + len(line) > WINDOW_TOKENS:
                break
            text += line
        yield text


def held_aside_texts(num_texts: int) -> Iterator[str]:
    """Yield texts for perplexity: tales, stories and questions that training never saw."""
    rng = random.Random("held aside")
    kinds = ("tale", "story", "story", "program", "add", "sort")
    for index in range(num_texts):
        kind = kinds[index % len(kinds)]
        text = ""
        while True:
            item = KINDS[kind].make(rng, rng.choice(KINDS[kind].levels))
            if not is_held_out(kind, item):
                continue
            if text and len(text) + len(item.text) > WINDOW_TOKENS:
                break
            text += item.text
        yield text
