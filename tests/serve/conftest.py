"""Checkpoints made by the real chain from the tiny models, and hands to damage them with."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from harness import shipped
from harness.artifacts import CalibrationSpec, EngineSpec, KvFormat, Recipe, Rule
from harness.calibrate import calibrate
from harness.export import export
from harness.models import open_source, read_inventory
from harness.quantize import quantize
from harness.recipe import plan
from tests.nouns import engine_spec
from tests.nouns import recipe_of as recipe

ENGINE = engine_spec(max_model_len=None)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remember the answers of no other test's engine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def engine() -> EngineSpec:
    return ENGINE


def recipe_of(model: Path, qformat: str, kv_cache: str, data: Path) -> Recipe:
    content = yaml.safe_load((shipped.recipes() / f"{qformat}.yaml").read_text(encoding="utf-8"))
    spec = CalibrationSpec(
        data=str(data), size=12, seq=64, seed=0, batch_tokens=512, layerwise=False
    )
    return recipe(
        spec,
        name=qformat,
        model=str(model),
        rules=tuple(Rule(**rule) for rule in content["rules"]),
        exclude=tuple(content["exclude"]),
        kv_cache=KvFormat(kv_cache),
    )


@pytest.fixture(scope="session")
def exported(
    calibration_jsonl: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Quantize a model with a shipped recipe; each combination once. Copy before damaging."""
    made: dict[tuple[Path, str, str], Path] = {}

    def make(model: Path, qformat: str = "nvfp4", kv_cache: str = "none") -> Path:
        asked = (model, qformat, kv_cache)
        if asked not in made:
            recipe = recipe_of(*asked, calibration_jsonl)
            source = open_source(str(model))
            inventory = read_inventory(source)
            chosen = plan(recipe, inventory)
            stats = calibrate(recipe, source, inventory, chosen)
            folder = tmp_path_factory.mktemp("exported") / "checkpoint"
            export(source, chosen, quantize(source, chosen, stats, device="cpu"), into=folder)
            made[asked] = folder
        return made[asked]

    return make


@pytest.fixture
def damaged(exported: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Copy a checkpoint and pass its tensors through a function that changes the mapping."""

    def make(model: Path, change: Callable[[dict[str, Tensor]], None], *asked: str) -> Path:
        folder = tmp_path / "damaged"
        shutil.copytree(exported(model, *asked), folder)
        file = folder / "model.safetensors"
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 -- no mapping
        change(tensors)
        file.unlink()
        save_file(tensors, file, metadata={"format": "pt"})
        return folder

    return make


@pytest.fixture
def reconfigured(exported: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Copy a checkpoint and change one of its JSON files."""

    def make(model: Path, name: str, change: Callable[[dict[str, object]], None]) -> Path:
        folder = tmp_path / "reconfigured"
        shutil.copytree(exported(model), folder)
        values = json.loads((folder / name).read_text(encoding="utf-8"))
        change(values)
        (folder / name).write_text(json.dumps(values), encoding="utf-8")
        return folder

    return make
