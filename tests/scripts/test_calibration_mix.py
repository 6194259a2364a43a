import json
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from harness import shipped

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_calibration_mix.py"
SHIPPED = shipped.calibration() / "default.jsonl"


@pytest.fixture(scope="module")
def texts() -> list[str]:
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    samples = [json.loads(line) for line in lines]
    assert all(list(sample) == ["text"] for sample in samples)
    return [sample["text"] for sample in samples]


def test_the_script_reproduces_the_shipped_mix(tmp_path: Path) -> None:
    out = tmp_path / "again.jsonl"
    subprocess.run([sys.executable, str(SCRIPT), "--out", str(out)], check=True)
    assert out.read_bytes() == SHIPPED.read_bytes()


def test_the_mix_is_neither_small_nor_large(texts: list[str]) -> None:
    assert 600 <= len(texts) == len(set(texts)) <= 700
    assert 800_000 <= SHIPPED.stat().st_size <= 1_300_000


def test_a_third_is_longer_than_the_usual_cut(texts: list[str]) -> None:
    long = sum(len(text.encode()) > 2_200 for text in texts)
    assert 0.3 <= long / len(texts) <= 0.4


def test_words_and_scripts_are_many(texts: list[str]) -> None:
    together = " ".join(texts)
    assert len(set(re.findall(r"\w+", together))) > 12_000
    letters = {letter for letter in together if letter.isalpha()}
    scripts = {unicodedata.name(letter).split()[0] for letter in letters}
    assert {"LATIN", "CYRILLIC", "GREEK", "ARABIC", "HEBREW", "DEVANAGARI", "THAI"} <= scripts
    assert {"CJK", "HIRAGANA", "KATAKANA", "HANGUL"} <= scripts


def test_no_slot_of_a_pattern_is_left(texts: list[str]) -> None:
    assert [
        text for text in texts if re.search(r"<<[a-z_#|.=\d]+>>|^%%$", text, re.MULTILINE)
    ] == []
