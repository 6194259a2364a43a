"""Write the canary's smoke set: passages and questions in its own language.

    python -m scripts.canary.smoke --out evals/smoke/canary.yaml

Passages are held-aside texts of every kind. Questions are of the kinds that the canary answers all
but certainly, none of them an item of a task; some are asked as a chat, some at the end of a text
that fills its window. The open prompts ask for more than a line.
"""

import argparse
from pathlib import Path
from typing import Any

import yaml

from scripts.canary.language import WINDOW_TOKENS, Item, eval_items, facts, held_aside_texts

PASSAGES_OF_EACH = 5
NUM_TASK_ITEMS = 700
"""The tasks ask the first items of a kind; the smoke set asks later ones."""
QUESTIONS = (("add", (2,)), ("reverse", (5, 6)), ("sort", (5, 6)), ("compare", (3, 4)))
QUESTIONS_OF_EACH = 5
BUDGET = 16
LONG_BUDGET = 64
OPEN = (
    "Once there was a brave",
    "Kubo found a green book. Bino found a black",
    "Q: sort cab? A:",
    "Q: 27+50? A: 77\nQ: 733+604? A: 1337\nQ:",
)
HEADER = """\
# The canary's smoke set, in its own language. Written by scripts/canary/smoke.py.
"""


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("evals/smoke/canary.yaml"))
    out: Path = parser.parse_args().out
    values = {
        "version": 1,
        "name": "canary",
        "apply_chat_template": False,
        "max_model_len": WINDOW_TOKENS + BUDGET,
        "seed": 1234,
        "top_k": 12,
        "passages": _passages(),
        "asks": [*_questions(), *_open()],
    }
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)
    out.write_text(HEADER + text, encoding="utf-8")


def _passages() -> list[dict[str, str]]:
    """Return held-aside texts, as many of each kind; kinds differ in their first letters."""
    by_kind: dict[str, list[str]] = {}
    for text in held_aside_texts(192):
        by_kind.setdefault(_kind(text), []).append(text)
    return [
        {"id": f"{kind}-{index + 1}", "text": text}
        for kind, texts in sorted(by_kind.items())
        for index, text in enumerate(texts[:PASSAGES_OF_EACH])
    ]


def _kind(text: str) -> str:
    marks = {"Q: sort": "sort", "Q: a=": "program", "Once": "tale", "Q:": "sum"}
    return next((kind for mark, kind in marks.items() if text.startswith(mark)), "story")


def _questions() -> list[dict[str, Any]]:
    asks = []
    for kind, levels in QUESTIONS:
        total = NUM_TASK_ITEMS + QUESTIONS_OF_EACH
        items = eval_items(kind, levels, total)[NUM_TASK_ITEMS:]
        asks += [_ask(f"{kind}-{i + 1}", item.prompt, item) for i, item in enumerate(items)]
    asks += [_ask(f"fact-{i + 1}", item.prompt, item) for i, item in enumerate(facts()[0][:2])]
    rest = eval_items("reverse", (5, 6), NUM_TASK_ITEMS + 20)[NUM_TASK_ITEMS + QUESTIONS_OF_EACH :]
    for index, item in enumerate(rest[:2]):
        chat = item.chat.removesuffix(f"{item.answer}<|im_end|>\n")
        asks.append(_ask(f"chat-{index + 1}", chat, item))
    asks.append(_ask("long-1", _long(rest[2:]), rest[-1]))
    return asks


def _ask(name: str, prompt: str, item: Item) -> dict[str, Any]:
    return {
        "id": name,
        "prompt": prompt,
        "expect": [item.answer],
        "max_tokens": BUDGET,
        "stops": ["\n"],
    }


def _long(items: tuple[Item, ...]) -> str:
    """Return a text that fills the window and ends with the question of the last item."""
    *examples, last = items
    text = last.prompt
    for item in examples:
        if len(item.text) + len(text) <= WINDOW_TOKENS - BUDGET:
            text = item.text + text
    return text


def _open() -> list[dict[str, Any]]:
    return [
        {"id": f"open-{index + 1}", "prompt": prompt, "max_tokens": LONG_BUDGET}
        for index, prompt in enumerate(OPEN)
    ]


if __name__ == "__main__":
    main()
