"""Ask a vLLM how it spells the layers of every architecture that it knows; prints JSON.

Run with the Python of vLLM's environment; PYTHONPATH may name the sources of another version:

    .venv-vllm/bin/python scripts/engine_names.py vllm==0.32.0 harness/engines/vllm.json

What is asked: of each model's class the fused layers (`packed_modules_mapping`) and how names are
rewritten (`hf_to_vllm_mapper`); of the files that define it the linear layers that are built
without a quantization, and the names of an expert's projections. The answers of a version replace
those that the file has. Nothing is built and no weight is read.
"""

import ast
import importlib.abc
import importlib.machinery
import inspect
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

os.environ.setdefault("VLLM_LOGGING_LEVEL", "CRITICAL")
_RULES = ("regex", "substr", "prefix", "suffix")
_LINEAR = ("Linear", "GateLinear")
_DEPTH = 5
"""Files that a model's file takes its parts from, and theirs."""


class _Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands for a package that models of pictures import and names need not."""

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] != "torchvision":
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module: ModuleType = MagicMock(name=spec.name)
        module.__path__, module.__spec__, module.__name__ = [], spec, spec.name
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing."""


def main() -> None:
    """Ask, and write the answers down."""
    version, path = sys.argv[1], Path(sys.argv[2])
    from vllm.model_executor.models.registry import _VLLM_MODELS, ModelRegistry  # noqa: PLC0415 -- vLLM's environment alone has it

    _without_torchvision()
    found: dict[str, dict[str, object]] = {}
    for architecture in _VLLM_MODELS:
        try:
            model = ModelRegistry._try_load_model_cls(architecture)  # noqa: SLF001 -- it has no public door
        except Exception as error:  # noqa: BLE001 -- of a package that is not installed
            print(f"{architecture}: {error!r:.100}", file=sys.stderr)
            continue
        if model is not None:
            found[architecture] = _family(model)
    _put(path, version, found)
    print(f"{version}: {len(found)} of {len(_VLLM_MODELS)} architectures")


def _without_torchvision() -> None:
    """Let its absence be noticed where that is asked, before it is made up for."""
    for name in ("transformers.image_utils", "transformers.processing_utils"):
        importlib.import_module(name)
    from transformers.utils.import_utils import is_torchvision_available  # noqa: PLC0415 -- likewise

    if not is_torchvision_available():
        sys.meta_path.append(_Absent())


def _family(model: type) -> dict[str, object]:
    files = list(_files(model))
    fused = dict(getattr(model, "packed_modules_mapping", None) or {})
    for tree in files[:1]:
        for whole, parts in _assigned(tree):
            fused.setdefault(whole, parts)
    family: dict[str, object] = {"fused": {k: list(v) for k, v in fused.items()}}
    mapper = getattr(model, "hf_to_vllm_mapper", None)
    if mapper is not None:
        rules = {rule: _rule(mapper, rule) for rule in _RULES}
        family["mapper"] = {rule: names for rule, names in rules.items() if names}
    if experts := next(filter(None, map(_experts, files)), None):
        family["experts"] = experts
    family["never_asked"] = sorted(_never_asked(files))
    return family


def _rule(mapper: object, rule: str) -> dict[str, str]:
    names = getattr(mapper, f"orig_to_new_{rule}", {})
    return {getattr(k, "pattern", k): v for k, v in names.items() if isinstance(v, str)}


def _files(model: type) -> Iterator[ast.Module]:
    """Yield the parsed files of a model, the nearest first."""
    names, seen = [model.__module__], set[str]()
    for _ in range(_DEPTH):
        nearest, names = names, []
        for name in nearest:
            module = sys.modules.get(name)
            file = getattr(module, "__file__", None)
            if module is None or name in seen or file is None:
                continue
            seen.add(name)
            tree = ast.parse(inspect.getsource(module))
            yield tree
            package = name if file.endswith("__init__.py") else name.rpartition(".")[0]
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom):
                    above = package.split(".")
                    start = above[: len(above) - node.level + 1] if node.level else []
                    imported = ".".join([*start, *([node.module] if node.module else [])])
                    if imported.startswith(("vllm.model_executor.models", "vllm.models")):
                        names.append(imported)


def _assigned(tree: ast.Module) -> Iterator[tuple[str, list[str]]]:
    """Yield fused layers that a file adds to `packed_modules_mapping` when a model is built."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Subscript):
            continue
        target = node.targets[0]
        if isinstance(target.value, ast.Attribute) and "packed_modules" in target.value.attr:
            try:
                yield ast.literal_eval(target.slice), ast.literal_eval(node.value)
            except ValueError:
                continue


def _experts(tree: ast.Module) -> list[str]:
    """Return the names of an expert's projections, where the file gives any."""
    wanted = ("ckpt_names", "ckpt_gate_proj_name", "ckpt_up_proj_name", "ckpt_down_proj_name")
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        literal = ast.Tuple([given[one] for one in wanted if one in given])
        try:
            named = ast.literal_eval(literal)
        except ValueError:
            continue
        flat = [n for one in named for n in (one if isinstance(one, tuple) else (one,)) if n]
        if flat:
            return list(dict.fromkeys(map(str, flat)))
    return []


def _never_asked(files: list[ast.Module]) -> set[str]:
    never: set[str] = set()
    seen: set[str] = set()
    for tree in files:
        asked: dict[str, set[bool]] = {}
        for name, has_quantization in _linears(tree):
            asked.setdefault(name, set()).add(has_quantization)
        never |= {name for name, answers in asked.items() if answers == {False}} - seen
        seen |= asked.keys()
    return never


def _linears(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """Yield the linear layers that a file builds, and whether they are given a quantization."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call):
            continue
        target, call = node.targets[0], node.value
        kind = getattr(call.func, "attr", getattr(call.func, "id", ""))
        if not kind.endswith(_LINEAR) or not isinstance(target, ast.Attribute):
            continue
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        config = given.get("quant_config")
        is_none = isinstance(config, ast.Constant) and config.value is None
        yield _last_part(given.get("prefix")) or target.attr, config is not None and not is_none


def _last_part(prefix: ast.expr | None) -> str | None:
    if isinstance(prefix, ast.JoinedStr) and isinstance(prefix.values[-1], ast.Constant):
        return str(prefix.values[-1].value).rpartition(".")[2] or None
    return None


def _put(path: Path, version: str, found: dict[str, dict[str, object]]) -> None:
    """Write the answers of a version; families that are alike are written once."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    every = {
        one: {a: known["families"][n] for a, n in numbers.items()}
        for one, numbers in known.get("versions", {}).items()
    }
    every[version] = found
    texts = sorted({json.dumps(f, sort_keys=True) for fs in every.values() for f in fs.values()})
    numbers = {text: number for number, text in enumerate(texts)}
    versions = {
        one: {a: numbers[json.dumps(f, sort_keys=True)] for a, f in sorted(families.items())}
        for one, families in sorted(every.items())
    }
    lines = ",\n  ".join(texts)
    rows = ",\n  ".join(f"{json.dumps(v)}: {json.dumps(a)}" for v, a in versions.items())
    content = f'{{\n "families": [\n  {lines}\n ],\n "versions": {{\n  {rows}\n }}\n}}\n'
    path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
