"""What is left out of the imports of models' classes, with packages of that structure."""

import sys
from collections.abc import Iterator
from importlib import import_module, invalidate_caches
from pathlib import Path

import pytest
import torch

from harness.models.spared import _import_kernels, sparing_imports

OPTIONAL = """
from importlib import import_module
try:
    import_module("fla.models")
    with_models = True
except ModuleNotFoundError as error:
    with_models = error.name != "fla.models"
"""
NEEDED = "from fla import models\nwith_models = True\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place for a package called fla, which nobody has imported before or after."""

    def forget() -> dict[str, object]:
        names = [name for name in sys.modules if name.partition(".")[0] == "fla"]
        return {name: sys.modules.pop(name) for name in names}

    before = forget()
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "fla").mkdir()
    for name in ("models", "layers", "ops"):
        (tmp_path / "fla" / f"{name}.py").touch()
    yield tmp_path / "fla"
    forget()
    sys.modules.update(before)  # type: ignore[arg-type]  # they were modules


@pytest.mark.parametrize(("text", "is_without"), [(OPTIONAL, True), (NEEDED, False)])
def test_kernels_are_imported_without_models_only_where_these_are_optional(
    folder: Path, text: str, *, is_without: bool
) -> None:
    (folder / "__init__.py").write_text(text, encoding="utf-8")
    invalidate_caches()
    _import_kernels()
    assert ("fla" in sys.modules) is is_without
    assert import_module("fla").with_models is not is_without
    assert import_module("fla.ops")
    assert import_module("fla.models")


def test_nothing_is_compiled_where_classes_are_imported() -> None:
    compiled = torch.compile

    def double(x: int) -> int:
        return 2 * x

    with sparing_imports():
        assert torch.compile(double) is double
        assert torch.compile(dynamic=True)(double) is double
    assert torch.compile is compiled
