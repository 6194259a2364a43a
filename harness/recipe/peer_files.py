"""Files of Model-Optimizer's recipes, with what they import put in its place.

A file is a mapping, or a mapping of imports and, behind `---`, a list. `imports` gives names to
other files; `$import: NAME` in a mapping stands for the keys of that file, which those beside it
replace;
alone in a list it stands for that file, or for each of its entries where it holds a list.

A path without an ending is looked for in the folders around the recipe, the nearest first, and then
in the package `modelopt_recipes`, where that is installed; nothing of it is run.

Source: nvidia-modelopt 0.47.0, torch/opt/config_loader.py.
"""

from collections.abc import Hashable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from harness.errors import RecipeError
from harness.reading import bounds, read_yaml_documents, refused_as

IMPORT, IMPORTS = "$import", "imports"


def resolved(path: Path, documents: Sequence[object]) -> object:
    """Return what a file holds, without imports.

    Raises:
        RecipeError: a file is missing, malformed, or imports itself.
    """
    return _Reader(path).resolved(path, documents, ())


class _Reader:
    """Reads a recipe's file and all that it imports."""

    def __init__(self, path: Path) -> None:
        self._folders = [*path.resolve().parents, *_library()]
        self._count = 0

    def resolved(self, path: Path, documents: Sequence[object], above: tuple[Path, ...]) -> object:
        named, body = _parts(path, documents)
        self._count += 1
        if self._count > bounds.IMPORTED_FILES:
            most = bounds.IMPORTED_FILES
            message = f"'{path}' and what imports it are more than {most} files. Simplify it."
            raise RecipeError(message)
        imported: dict[object, object] = {}
        for name, target in named.items():
            file = self._found(path, name, target)
            if file in (*above, path):
                message = f"'{path}', imports.{name}: '{file}' imports itself. Mend the files."
                raise RecipeError(message)
            with refused_as(RecipeError, "Mend the file."):
                content = read_yaml_documents(file)
            imported[name] = self.resolved(file, content, (*above, path))
        return _put_in(body, imported, str(path))

    def _found(self, path: Path, name: object, target: object) -> Path:
        if isinstance(target, str) and target:
            names = [target] if target.endswith((".yml", ".yaml")) else []
            names = names or [f"{target}.yml", f"{target}.yaml"]
            for folder in self._folders:
                for one in names:
                    if (folder / one).is_file():
                        return (folder / one).resolve()
        message = (
            f"'{path}', imports.{name}: there is no file '{target}' in the folders around the "
            "recipe or in an installed nvidia-modelopt. Put it there, or install nvidia-modelopt."
        )
        raise RecipeError(message)


def in_library(name: Path) -> Path | None:
    """Return the file of an installed recipe by its name there, such as `general/ptq/NAME`."""
    if name.is_absolute():
        return None
    endings = ("", ".yml", ".yaml")
    files = (folder / f"{name}{end}" for folder in _library() for end in endings)
    return next((file for file in files if file.is_file()), None)


def _library() -> list[Path]:
    """Return the folder of the installed package's recipes, if there is one."""
    spec = find_spec("modelopt_recipes")
    return [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []


def _parts(path: Path, documents: Sequence[object]) -> tuple[Mapping[object, object], object]:
    """Return the imports of a file and its body."""
    head = documents[0] if documents else {}
    body: object
    if len(documents) == 1:
        body = head
        imports = head.get(IMPORTS) if isinstance(head, dict) else None
    elif len(documents) == 2 and isinstance(head, dict):  # noqa: PLR2004  imports, and what uses them
        imports, second = head.get(IMPORTS), documents[1]
        body = {**head, **second} if isinstance(second, dict) else second
    else:
        message = f"'{path}' is no recipe of Model-Optimizer: it holds {len(documents)} documents."
        raise RecipeError(message + " Mend the file.")
    if not isinstance(imports, dict | None):
        message = f"'{path}', imports: no mapping of names to files. Mend the file."
        raise RecipeError(message)
    if isinstance(body, dict):
        body = {key: value for key, value in body.items() if key != IMPORTS}
    return imports or {}, body


def _put_in(value: object, imported: Mapping[object, object], where: str) -> object:
    """Return a value with every `$import` in it put in its place."""
    if isinstance(value, list):
        return _put_in_list(value, imported, where)
    if not isinstance(value, dict):
        return value
    if IMPORT not in value:
        return {key: _put_in(one, imported, f"{where}.{key}") for key, one in value.items()}
    names = value[IMPORT] if isinstance(value[IMPORT], list) else [value[IMPORT]]
    parts = [_named(name, imported, where) for name in names]
    inline = {key: one for key, one in value.items() if key != IMPORT}
    if len(parts) == 1 and not inline:
        return parts[0]
    merged: dict[object, object] = {}
    for part in (*parts, _put_in(inline, imported, where)):
        if not isinstance(part, dict):
            message = f"{where}: '{IMPORT}' stands beside other keys, and names no mapping."
            raise RecipeError(message + " Mend the file.")
        merged |= part
    return merged


def _put_in_list(
    value: Sequence[object], imported: Mapping[object, object], where: str
) -> list[object]:
    found: list[object] = []
    for index, one in enumerate(value):
        whole = _put_in(one, imported, f"{where}[{index}]")
        is_alone = isinstance(one, dict) and list(one) == [IMPORT]
        found.extend(whole if is_alone and isinstance(whole, list) else [whole])
        if len(found) > bounds.IMPORTED_ENTRIES:
            message = f"{where} holds more than {bounds.IMPORTED_ENTRIES} entries with its imports."
            raise RecipeError(message + " Simplify it.")
    return found


def _named(name: object, imported: Mapping[object, object], where: str) -> object:
    if not isinstance(name, Hashable) or name not in imported:
        known = ", ".join(map(str, imported)) or "none"
        message = f"{where}: '{IMPORT}: {name}' names none of the imports ({known}). Mend the file."
        raise RecipeError(message)
    return imported[name]
