r"""Gather real text by domain, to train a mixture of experts on and to calibrate it with.

    apt-get download wordnet-base bible-kjv-text git-doc developers-reference fortunes manpages \
        manpages-dev manpages-de manpages-fr manpages-es manpages-ja manpages-ru manpages-pl \
        debian-reference-de debian-reference-fr debian-reference-es debian-reference-ja ...
    for deb in *.deb; do dpkg -x $deb x/${deb%%_*}; done
    python -m scripts.coverage.text --from x --out corpus

A folder below `--from` is a domain by its name's last part where that is a language, else English.
Source code is not gathered here: `train.py` takes what is installed on the machine.
A document is kept once, as one JSON line {"text": ...} of its domain's file.
"""

import argparse
import gzip
import html
import json
import lzma
import random
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from scripts.canary.language import training_item

_LANGUAGES = ("de", "fr", "es", "ja", "ru", "pl", "pt", "it", "cn")
_SHORTEST = 400
"""Characters of a document."""
_GLOSSES = 60
"""Of a dictionary in one document."""
_TAG = re.compile(r"<(script|style).*?</\1>|<[^>]+>", re.DOTALL)
_ESCAPE = re.compile(r"\\f(\[\w*\]|.)|\\[&|^%]|\\s[-+]?\d")


def documents(folder: Path) -> Iterator[str]:
    """Yield the texts below a folder, cleaned of markup."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield from _read(path)


def _read(path: Path) -> Iterator[str]:
    if path.name.startswith("data.") and "wordnet" in path.parts:
        yield from _glosses(path)
    elif path.suffix == ".html":
        yield html.unescape(_TAG.sub(" ", path.read_text("utf-8", errors="replace")))
    elif path.suffix == ".txt" or ("fortunes" in path.parts and not path.suffix):
        yield path.read_text("utf-8", errors="replace")
    elif path.suffix == ".gz" and "man" in path.parts:
        yield _manual(gzip.decompress(path.read_bytes()).decode("utf-8", errors="replace"))


def _manual(text: str) -> str:
    """Take the requests out of a page written for troff."""
    lines = (re.sub(r"^\.(B|I|BR|IR|RB|RI|SH|SS|TP|IP) ?", "", line) for line in text.splitlines())
    kept = (line for line in lines if not line.startswith((".", "'\\\"")))
    return _ESCAPE.sub("", "\n".join(kept)).replace("\\-", "-").replace("\\(", "(")


def _glosses(path: Path) -> Iterator[str]:
    """Yield definitions with their words, some at a time; the file is in no order of meaning."""
    lines = [line for line in path.read_text("utf-8").splitlines() if " | " in line]
    entries = []
    for line in lines:
        head, _, gloss = line.partition(" | ")
        fields = head.split()
        words = [fields[4 + 2 * i].replace("_", " ") for i in range(int(fields[3], 16))]
        entries.append(f"{', '.join(words)}: {gloss.strip()}")
    for start in range(0, len(entries), _GLOSSES):
        yield "\n".join(entries[start : start + _GLOSSES])


def questions(number: int) -> Iterator[str]:
    """Yield documents of the canary's questions and answers."""
    rng = random.Random("questions")  # noqa: S311 -- training data
    for _ in range(number):
        yield "".join(training_item(rng).text for _ in range(_GLOSSES))


def domain_of(folder: Path) -> str:
    """Return the domain that a folder's name stands for."""
    last = folder.name.rpartition("-")[2]
    return last if last in _LANGUAGES else "en"


def main() -> None:
    """Write one compressed file a domain, and print how much each holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--from", dest="source", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=3000, help="documents of the canary's")
    arguments = parser.parse_args()
    found: dict[str, list[str]] = {}
    seen: set[int] = set()
    for folder in sorted(path for path in arguments.source.iterdir() if path.is_dir()):
        for text in documents(folder):
            kept = re.sub(r"[ \t]+", " ", re.sub(r"\s*\n\s*\n+", "\n\n", text)).strip()
            digest = zlib.crc32(kept.encode())
            if len(kept) >= _SHORTEST and digest not in seen:
                seen.add(digest)
                found.setdefault(domain_of(folder), []).append(kept)
    found["questions"] = list(questions(arguments.questions))
    arguments.out.mkdir(parents=True, exist_ok=True)
    for domain, texts in found.items():
        lines = "\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts)
        (arguments.out / f"{domain}.jsonl.xz").write_bytes(lzma.compress(lines.encode(), preset=6))
        print(f"{domain}: {len(texts)} documents, {len(lines) / 1e6:.1f} M characters")


if __name__ == "__main__":
    main()
