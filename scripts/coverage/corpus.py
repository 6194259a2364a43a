"""Texts by domain as windows of token ids: what trains, what calibrates and what is held aside.

A document belongs wholly to one of the three, by a hash of its text. Domains are the files that
`text.py` wrote, and source code that is installed on the machine.

Shapes: W windows, T tokens of a window.
"""

import json
import lzma
import random
import sysconfig
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

TOKENS = 512
END = "<|endoftext|>"
_CODE = {"python": (".py",), "c": (".h", ".hpp", ".cuh", ".cpp", ".c")}
_LONGEST = 40_000
"""Characters that are taken of a file of source code."""
_PARTS = ("calibrate", "evaluate", "train")
_PERCENT = (12, 4, 84)


class Windows(NamedTuple):
    """Windows of one domain, each int32 [W, T]."""

    train: Tensor
    calibrate: Tensor
    evaluate: Tensor


def read_texts(corpus: Path, *, code_characters: int) -> dict[str, list[str]]:
    """Return the documents of each domain.

    Args:
        corpus: what `text.py` wrote.
        code_characters: of each language of source code that is installed here; 0 for none.
    """
    texts = {}
    for file in sorted(corpus.glob("*.jsonl.xz")):
        lines = lzma.decompress(file.read_bytes()).decode().splitlines()
        texts[file.name.partition(".")[0]] = [json.loads(line)["text"] for line in lines]
    for domain, suffixes in _CODE.items() if code_characters else ():
        texts[domain] = list(_source_code(suffixes, code_characters))
    return texts


def _source_code(suffixes: tuple[str, ...], most: int) -> Iterator[str]:
    root = Path(sysconfig.get_path("purelib"))
    paths = sorted(path for path in root.rglob("*") if path.suffix in suffixes and path.is_file())
    random.Random(0).shuffle(paths)  # noqa: S311 -- the order of texts
    taken, seen = 0, set[int]()
    for path in paths:
        text = path.read_text("utf-8", errors="replace")[:_LONGEST]
        if (digest := zlib.crc32(text.encode())) in seen:
            continue
        seen.add(digest)
        yield text
        taken += len(text)
        if taken >= most:
            return


def train_tokenizer(texts: Mapping[str, Sequence[str]], *, vocabulary: int) -> Tokenizer:
    """Return byte pairs learned from some of each domain."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    some = (text[:8000] for found in texts.values() for text in found[:400])
    tokenizer.train_from_iterator(some, trainer)
    return tokenizer


def windows_of(tokenizer: Tokenizer, texts: Sequence[str]) -> Windows:
    """Cut the documents of one domain into windows; each ends with the token that says so."""
    end = tokenizer.token_to_id(END) or 0
    ids: dict[str, list[int]] = {name: [] for name in _PARTS}
    parts = [_part(text) for text in texts]
    for part, encoded in zip(parts, tokenizer.encode_batch(list(texts)), strict=True):
        ids[part] += [*encoded.ids, end]
    cut = {}
    for name, stream in ids.items():
        whole = len(stream) // TOKENS * TOKENS
        windows_WT = torch.tensor(stream[:whole], dtype=torch.int32).view(-1, TOKENS)
        order_W = torch.randperm(len(windows_WT), generator=torch.Generator().manual_seed(0))
        cut[name] = windows_WT[order_W]
    return Windows(**cut)


def _part(text: str) -> str:
    number = zlib.crc32(text[:2000].encode()) % 100
    return random.Random(number).choices(_PARTS, _PERCENT)[0]  # noqa: S311 -- as above
