"""Write the default calibration mix: many kinds of text, made here, so that no network is needed.

Calibration wants inputs that reach the activations a model will see: many different tokens, many
kinds of text, and lengths on both sides of the usual cut at 512 tokens. The mix has prose,
dialogues in several chat notations, source code, configuration and logs, mathematics worked step
by step, tables and data, and other languages and scripts. It says nothing true; only its variety
matters. The words and sentence patterns lie beside this file in calibration_mix/*.txt and were
written for it; numbers, tables and solutions are computed. The same seed gives the same bytes.

Left out: licensed corpora, which would calibrate as well or better where one has a network; name
one with --calib-data then.

Usage: python scripts/make_calibration_mix.py [--out evals/calibration/default.jsonl]
"""

import argparse
import itertools
import json
import random
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEFAULT_OUT = HERE.parent / "evals" / "calibration" / "default.jsonl"
SEED = 20261123
LONG_BYTES = (2300, 4400)
"""A third of the samples: longer than 512 tokens, so that truncation is used."""
SHORT_BYTES = (120, 1500)

_SLOT = re.compile(
    r"<<(?:(?P<bind>[a-z])=)?"
    r"(?P<symbol>[a-z_]+|#\d+\.\.\d+)(?:\|(?P<change>[a-z]+))?>>"
)
_VOWELS = "aeiou"
Rng = random.Random
Units = Iterator[str]


class Grammar:
    """Patterns by symbol; a slot in a pattern is filled with another symbol's pattern.

    `[name]` takes one pattern a line, `[name:words]` lists separated by commas, `[name:blocks]`
    patterns of several lines separated by `%%`. Words of a subject are named `subject.symbol`.
    """

    def __init__(self, folder: Path) -> None:
        self.rules: dict[str, list[str]] = {}
        for path in sorted(folder.glob("*.txt")):
            self._read(path.read_text(encoding="utf-8"))
        self.subjects = sorted(name.split(".")[0] for name in self.rules if name.endswith(".noun"))
        self.languages = self._read((folder / "languages.txt").read_text(encoding="utf-8"))

    def _read(self, text: str) -> list[str]:
        """Take the rules of one file and return their names."""
        names = []
        for section in re.split(r"^\[(?=[a-z_.]+(?::[a-z]+)?\]$)", text, flags=re.MULTILINE)[1:]:
            head, _, body = section.partition("]\n")
            name, _, form = head.partition(":")
            lines = body.strip("\n").splitlines()
            found = {
                "": lines,
                "words": [word for line in lines for word in line.split(", ")],
                "blocks": re.split(r"\n%%\n", "\n".join(lines)),
            }[form]
            self.rules[name] = [pattern for pattern in found if pattern]
            names.append(name)
        return names

    def make(self, symbol: str, rng: Rng, subject: str) -> str:
        """Return one text for `symbol`, with the words of `subject`."""
        patterns = self.rules.get(f"{subject}.{symbol}") or self.rules[symbol]
        return self.fill(rng.choice(patterns), rng, subject)

    def fill(self, pattern: str, rng: Rng, subject: str) -> str:
        """Fill the slots of one pattern."""
        bound: dict[str, str] = {}

        def fill(slot: re.Match[str]) -> str:
            name = slot["symbol"]
            if name.startswith("#"):
                low, high = name[1:].split("..")
                text = str(rng.randint(int(low), int(high)))
            else:
                text = bound[name] if name in bound else self.make(name, rng, subject)
            if slot["bind"]:
                bound[slot["bind"]] = text
            return CHANGES[slot["change"]](text) if slot["change"] else text

        return _SLOT.sub(fill, pattern)


def plural(noun: str) -> str:
    """Return the plural of a regular noun."""
    if noun.endswith("y") and noun[-2] not in _VOWELS:
        return f"{noun[:-1]}ies"
    return noun + ("es" if noun.endswith(("s", "x", "z", "ch", "sh")) else "s")


def with_ending(verb: str, ending: str) -> str:
    """Return a regular verb with `ed` or `ing`."""
    if verb.endswith("e"):
        return verb[:-1] + ending
    if verb.endswith("y") and verb[-2] not in _VOWELS and ending == "ed":
        return f"{verb[:-1]}ied"
    short = len(verb) > 2 and verb[-2] in _VOWELS and verb[-3] not in _VOWELS  # noqa: PLR2004
    if short and verb[-1] not in "aeiouwxy" and sum(c in _VOWELS for c in verb) == 1:
        return verb + verb[-1] + ending
    return verb + ending


def with_article(noun: str) -> str:
    """Put `a` or `an` before a noun."""
    return f"{'an' if noun[0] in _VOWELS else 'a'} {noun}"


def capitalized(text: str) -> str:
    """Return the text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


CHANGES: dict[str, Callable[[str], str]] = {
    "a": with_article,
    "acap": lambda noun: capitalized(with_article(noun)),
    "camel": lambda name: "".join(part.capitalize() for part in name.split("_")),
    "cap": capitalized,
    "ing": lambda verb: with_ending(verb, "ing"),
    "past": lambda verb: with_ending(verb, "ed"),
    "plural": plural,
    "upper": str.upper,
}


def prose(grammar: Grammar, rng: Rng) -> Units:
    """Yield paragraphs on one subject, now and then a heading, a story, a letter or news."""
    subject = rng.choice(grammar.subjects)
    if rng.random() < 0.5:  # noqa: PLR2004
        yield f"{'#' * rng.randint(0, 2)} {grammar.make('heading', rng, subject)}".strip()
    while True:
        symbol = rng.choice(("sentence", "sentence", "sentence", "story", "letter", "news"))
        count = rng.randint(3, 7) if symbol == "sentence" else 1
        yield " ".join(grammar.make(symbol, rng, subject) for _ in range(count))


NOTATIONS = (
    ("<|im_start|>{}\n", "<|im_end|>\n", ("system", "user", "assistant")),
    ("### {}:\n", "\n\n", ("System", "Instruction", "Response")),
    ("{}: ", "\n", ("System", "User", "Assistant")),
    ("[{}] ", "\n", ("setup", "question", "answer")),
)


def dialogue(grammar: Grammar, rng: Rng) -> Units:
    """Yield the turns of a conversation in one notation; some answers think first."""
    subject = rng.choice(grammar.subjects)
    before, after, (system, user, assistant) = rng.choices(NOTATIONS, weights=(3, 1, 1, 1))[0]
    thinks = rng.random() < 0.3  # noqa: PLR2004

    def turn(role: str, text: str) -> str:
        return f"{before.format(role)}{text}{after}".rstrip("\n")

    if rng.random() < 0.6:  # noqa: PLR2004
        yield turn(system, grammar.make("system", rng, subject))
    symbol = "ask"
    while True:
        yield turn(user, grammar.make(symbol, rng, subject))
        reply = grammar.make("reply", rng, subject)
        if thinks:
            reply = f"<think>\n{grammar.make('thought', rng, subject)}\n</think>\n\n{reply}"
        yield turn(assistant, reply)
        symbol = rng.choice(("ask", "followup", "followup"))


def source(grammar: Grammar, rng: Rng) -> Units:
    """Yield pieces of one programming language, sometimes in a fence after a sentence."""
    subject = rng.choice(grammar.subjects)
    languages = ("python", "python", "c", "rust", "go", "javascript", "sql", "shell", "config")
    language = rng.choice(languages)
    is_fenced = rng.random() < 0.4  # noqa: PLR2004
    while True:
        code = grammar.make(language, rng, subject)
        ask = grammar.make("ask", rng, subject)
        yield f"{ask}\n\n```{language}\n{code}\n```" if is_fenced else code


def log(grammar: Grammar, rng: Rng) -> Units:
    """Yield lines of logs, traces and patches."""
    subject = rng.choice(grammar.subjects)
    while True:
        yield grammar.make("log", rng, subject)


def language(grammar: Grammar, rng: Rng) -> Units:
    """Yield paragraphs in other languages, one after another; no sentence comes twice in one."""
    names = rng.sample(grammar.languages, len(grammar.languages))
    for name in itertools.cycle(names):
        patterns = grammar.rules[name]
        sentences = [grammar.fill(p, rng, "nature") for p in rng.sample(patterns, len(patterns))]
        yield ("" if name in {"chinese", "japanese"} else " ").join(sentences)


def glossary(grammar: Grammar, rng: Rng) -> Units:
    """Yield entries full of rare words, codes and signs."""
    subject = rng.choice(grammar.subjects)
    while True:
        yield "\n".join(grammar.make("gloss", rng, subject) for _ in range(rng.randint(2, 6)))


def data(grammar: Grammar, rng: Rng) -> Units:
    """Yield records on one subject as JSON, CSV, a Markdown table or a list."""
    subject = rng.choice(grammar.subjects)
    form = rng.choice(("json", "csv", "markdown", "markdown", "list"))
    while True:
        keys = rng.sample(grammar.rules["field"], 4)
        rows = [_row(grammar, rng, subject) for _ in range(rng.randint(3, 9))]
        yield FORMS[form](keys, rows)


def _row(grammar: Grammar, rng: Rng, subject: str) -> list[object]:
    noun = grammar.make("noun", rng, subject)
    share = round(rng.lognormvariate(0, 2), 3)
    return [noun, rng.randint(-99, 99_999), share, grammar.make("city", rng, subject)]


def as_json(keys: list[str], rows: list[list[object]]) -> str:
    """Set records as indented JSON."""
    items = [dict(zip(keys, row, strict=True)) for row in rows]
    return json.dumps({"items": items, "next": None, "complete": True}, indent=2)


def as_csv(keys: list[str], rows: list[list[object]]) -> str:
    """Set records as lines of comma-separated values."""
    return "\n".join([",".join(keys), *(",".join(str(v) for v in row) for row in rows)])


def as_markdown(keys: list[str], rows: list[list[object]]) -> str:
    """Set records as a table with a total."""
    head = [f"| {' | '.join(keys)} |", "|---|---:|---:|---|"]
    lines = [f"| {' | '.join(str(v) for v in row)} |" for row in rows]
    total = sum(int(str(row[1])) for row in rows)
    return "\n".join([*head, *lines, f"\nThe {keys[1]} of all {len(rows)} rows is {total}."])


def as_list(keys: list[str], rows: list[list[object]]) -> str:
    """Set records as a nested list."""
    return "\n".join(
        f"{number}. **{row[0]}**, {row[3]}\n   - {keys[1]}: {row[1]:,}\n   - {keys[2]}: {row[2]}"
        for number, row in enumerate(rows, start=1)
    )


FORMS: dict[str, Callable[[list[str], list[list[object]]], str]] = {
    "csv": as_csv,
    "json": as_json,
    "list": as_list,
    "markdown": as_markdown,
}


def maths(grammar: Grammar, rng: Rng) -> Units:
    """Yield problems with their solutions, step by step."""
    number = rng.randint(1, 40)
    while True:
        problem = rng.choice(PROBLEMS)
        yield f"Problem {number}. {problem(grammar, rng)}"
        number += 1


def linear_equation(_: Grammar, rng: Rng) -> str:
    """Solve a x + b = c x + d."""
    a, c = rng.sample(range(2, 30), 2)
    b, d = rng.randint(-60, 60), rng.randint(-60, 60)
    x = Fraction(d - b, a - c)
    return (
        f"Solve {a}x + ({b}) = {c}x + ({d}).\n"
        f"Subtract {c}x on both sides: {a - c}x + ({b}) = {d}.\n"
        f"Subtract {b}: {a - c}x = {d - b}.\nDivide by {a - c}: x = {x}.\n"
        f"Check: {a} * {x} + ({b}) = {a * x + b} and {c} * {x} + ({d}) = {c * x + d}."
    )


def quadratic(_: Grammar, rng: Rng) -> str:
    """Factor a quadratic with integer roots."""
    r, s = rng.randint(-12, 12), rng.randint(-12, 12)
    p, q = -(r + s), r * s
    return (
        f"Find the roots of $x^2 + {p}x + {q} = 0$.\n"
        f"The discriminant is $D = ({p})^2 - 4 \\cdot {q} = {p * p - 4 * q}$, "
        f"so $\\sqrt{{D}} = {abs(r - s)}$.\n"
        f"$$x_{{1,2}} = \\frac{{{-p} \\pm {abs(r - s)}}}{{2}}$$\n"
        f"Hence $x_1 = {max(r, s)}$ and $x_2 = {min(r, s)}$. \\boxed{{{max(r, s)}, {min(r, s)}}}"
    )


def word_problem(grammar: Grammar, rng: Rng) -> str:
    """Buy things at a discount."""
    subject = rng.choice(grammar.subjects)
    name, noun = grammar.make("first", rng, subject), grammar.make("noun", rng, subject)
    count, price, percent = rng.randint(2, 48), rng.randint(3, 250), rng.choice((5, 10, 15, 20, 25))
    gross = count * price
    return (
        f"{name} buys {count} {plural(noun)} at ${price} each and gets {percent}% off. "
        f"What is the bill?\nStep 1: {count} x {price} = {gross}.\n"
        f"Step 2: {percent}% of {gross} is {gross * percent / 100:.2f}.\n"
        f"Step 3: {gross} - {gross * percent / 100:.2f} = {gross * (100 - percent) / 100:.2f}.\n"
        f"#### {gross * (100 - percent) / 100:.2f}"
    )


def derivative(_: Grammar, rng: Rng) -> str:
    """Differentiate a polynomial and evaluate it."""
    a, b, c, x = (rng.randint(-9, 9) for _ in range(4))
    return (
        f"Let f(x) = {a}x^3 + {b}x^2 + {c}x. Then f'(x) = {3 * a}x^2 + {2 * b}x + {c}, "
        f"so f'({x}) = {3 * a * x * x} + {2 * b * x} + {c} = {3 * a * x * x + 2 * b * x + c}. "
        f"The tangent at x = {x} passes through ({x}, {a * x**3 + b * x * x + c * x})."
    )


def matrix_product(_: Grammar, rng: Rng) -> str:
    """Multiply two matrices of two rows."""
    (a, b), (c, d) = [[rng.randint(-9, 9) for _ in "ab"] for _ in "cd"]
    (e, f), (g, h) = [[rng.randint(-9, 9) for _ in "ef"] for _ in "gh"]
    return (
        f"[[{a}, {b}], [{c}, {d}]] times [[{e}, {f}], [{g}, {h}]]: the first row is "
        f"({a}*{e} + {b}*{g}, {a}*{f} + {b}*{h}) = ({a * e + b * g}, {a * f + b * h}), the second "
        f"is ({c * e + d * g}, {c * f + d * h}). The determinant of the product is "
        f"{(a * d - b * c) * (e * h - f * g)} = {a * d - b * c} * {e * h - f * g}."
    )


def long_sum(_: Grammar, rng: Rng) -> str:
    """Add numbers one after another."""
    numbers = [rng.randint(-5000, 90_000) for _ in range(rng.randint(3, 8))]
    lines, total = [f"Add up {', '.join(map(str, numbers))}."], 0
    for value in numbers:
        lines.append(f"{total} + {value} = {total + value}")
        total += value
    return "\n".join([*lines, f"Mean: {total / len(numbers):.4f}; in binary: {total:+b}."])


PROBLEMS = (
    linear_equation,
    quadratic,
    word_problem,
    derivative,
    matrix_product,
    long_sum,
)
KINDS: tuple[tuple[Callable[[Grammar, Rng], Units], int], ...] = (
    (prose, 150),
    (dialogue, 114),
    (source, 105),
    (log, 30),
    (maths, 66),
    (data, 54),
    (language, 84),
    (glossary, 39),
)
"""How many samples of each kind."""


def compose(units: Units, num_bytes: int) -> str:
    """Join units until the text has `num_bytes` bytes."""
    text = next(units)
    while len(text.encode()) < num_bytes:
        text += ("\n" if "<|im_end|>" in text else "\n\n") + next(units)
    return text


def samples(seed: int) -> list[str]:
    """Return the whole mix in a random order."""
    rng = random.Random(seed)  # noqa: S311  variety, not secrecy
    grammar = Grammar(HERE / "calibration_mix")
    texts = []
    for make, count in KINDS:
        for number in range(count):
            span = LONG_BYTES if number % 3 == 0 else SHORT_BYTES
            texts.append(compose(make(grammar, rng), rng.randint(*span)))
    rng.shuffle(texts)
    return texts


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    out: Path = parser.parse_args().out
    texts = samples(SEED)
    lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(lines), encoding="utf-8", newline="\n")
    print(f"{out}: {len(texts)} samples, {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
