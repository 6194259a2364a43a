"""Hostile checkpoints written by hand: one way each to mislead, to hang or to break a reader."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Damage = Callable[[Path], object]
CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
FIRST = "model-00001-of-00002.safetensors"
LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


def _config(**change: object) -> Damage:
    """Change settings of config.json."""

    def damage(folder: Path) -> None:
        values = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps({**values, **change}))

    return damage


def _section(**change: object) -> Damage:
    """Change what config.json says of quantization."""

    def damage(folder: Path) -> None:
        values = json.loads((folder / CONFIG).read_text())
        values["quantization_config"] |= change
        (folder / CONFIG).write_text(json.dumps(values))

    return damage


def _header(edit: Callable[[dict[str, Any]], object], *, data: bytes = b"") -> Damage:
    """Change the header of the first weight file, and what follows its data."""

    def damage(folder: Path) -> None:
        content = (folder / FIRST).read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        edit(header)
        text = json.dumps(header).encode()
        whole = len(text).to_bytes(8, "little") + text + content[8 + length :] + data
        (folder / FIRST).write_bytes(whole)

    return damage


def _first(header: dict[str, Any], **change: object) -> None:
    name = min((n for n in header if n != "__metadata__"), key=lambda n: header[n]["data_offsets"])
    header[name] |= change


def _bytes(name: str, content: bytes | str) -> Damage:
    text = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(text)


def _special(name: str, kind: str) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / name
        path.unlink(missing_ok=True)
        if kind == "FIFO":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to(kind)

    return damage


CORPUS: Mapping[str, Damage] = {
    "a byte order mark": lambda f: (f / CONFIG).write_bytes(
        b"\xef\xbb\xbf" + (f / CONFIG).read_bytes()
    ),
    "UTF-16": lambda f: (f / CONFIG).write_text((f / CONFIG).read_text(), encoding="utf-16"),
    "deep JSON": _bytes(CONFIG, "[" * 100_000),
    "deep mappings": _bytes(CONFIG, '{"a":' * 100_000),
    "a number of 5,000 digits": _bytes(CONFIG, '{"a": ' + "9" * 5_000 + "}"),
    "a key twice": _bytes(CONFIG, '{"model_type": "a", "model_type": "b"}'),
    "a list for a configuration": _bytes(CONFIG, "[]"),
    "a list for a section": _config(quantization_config=["NVFP4"]),
    "10**10 experts": _config(text_config={"num_experts": 10**10}),
    "2**70 experts": _config(text_config={"num_experts": 2**70}),
    "one name for the list": _section(ignore="lm_head"),
    "a number in the list": _section(ignore=[7]),
    "an expression that backtracks": _section(
        quant_method="compressed-tensors",
        ignore=["re:([a-z0-9._]+)*X$"],
        config_groups={"group_0": {"targets": ["Linear"]}},
    ),
    "an expression of a megabyte": _section(
        quant_method="compressed-tensors", ignore=["re:" + "(" * 1_000_000]
    ),
    "a declaration of another shape": _bytes("hf_quant_config.json", '{"quantization": []}'),
    "overlapping tensors": _header(lambda h: _first(h, data_offsets=[1, 2])),
    "negative dimensions": _header(lambda h: _first(h, shape=[-1, -1])),
    "textual dimensions": _header(lambda h: _first(h, shape=["1"])),
    "float offsets": _header(lambda h: _first(h, data_offsets=[0.0, 1.0])),
    "numeric metadata": _header(lambda h: h.update({"__metadata__": {"a": 1}})),
    "trailing bytes": _header(lambda _: None, data=b"more"),
    "a type without numbers": _header(lambda h: _first(h, dtype="C64")),
    "a header of 100,000 levels": _bytes(FIRST, (200_000).to_bytes(8, "little") + b"[" * 200_000),
    "a FIFO for weights": _special(FIRST, "FIFO"),
    "a folder for weights": _special(FIRST, "folder"),
    "a device for weights": _special(FIRST, "/dev/zero"),
    "a dangling link for weights": _special(FIRST, "nothing"),
    "a FIFO for the configuration": _special(CONFIG, "FIFO"),
    "a device for the index": _special(INDEX, "/dev/zero"),
    "a FIFO for the template": _special("chat_template.jinja", "FIFO"),
    "a list for an index": _bytes(INDEX, "[]"),
    "a list for a weight map": _bytes(INDEX, '{"weight_map": []}'),
    "a path in the index": _bytes(INDEX, '{"weight_map": {"a": "../../etc/passwd"}}'),
    "a path in the manifest": _bytes("harness.json", '{"sha256": {"../x": "0"}}'),
    "a long name in the manifest": _bytes("harness.json", '{"sha256": {"%s": ""}}' % ("a" * 999)),
    "a template that loops": _bytes("chat_template.jinja", LOOP),
    "a template that takes all memory": _bytes("chat_template.jinja", "{{ 'a' * 10000000000 }}"),
    "a template that divides": _bytes("chat_template.jinja", "{{ 1 // 0 }}"),
    "a template that calls itself": _bytes(
        "chat_template.jinja", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"
    ),
    "a template in UTF-16": _bytes("chat_template.jinja", "{{ messages }}".encode("utf-16")),
    "a template that is no text": _bytes("tokenizer_config.json", '{"chat_template": {"a": 1}}'),
    "a tokenizer that is a list": _bytes("tokenizer.json", "[]"),
    "NaN among settings": _bytes("generation_config.json", '{"temperature": NaN}'),
}
