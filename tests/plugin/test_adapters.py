"""What a vLLM has no place for is left out and named; what keeps it safe stops it."""

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from harness.plugin import harness_vllm
from harness.plugin.harness_vllm import adapters
from harness.plugin.harness_vllm.adapters import Adapter, Need, NotFoundError, find, install

LOADER = "vllm.model_executor.model_loader.base_loader"
MIDDLEWARE = "vllm.entrypoints.serve.middleware.authenticate"
Fake = Callable[..., ModuleType]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    """Put a module of that name, and those around it, in place of vLLM's."""
    monkeypatch.setattr(sys, "modules", sys.modules.copy())

    def put(name: str, **content: object) -> ModuleType:
        path = name.split(".")
        for end in range(1, len(path) + 1):
            part = ".".join(path[:end])
            if part not in sys.modules or not hasattr(sys.modules[part], "is_fake"):
                module = ModuleType(part)
                vars(module).update(is_fake=True, __path__=[])
                sys.modules[part] = module
        vars(sys.modules[name]).update(content)
        return sys.modules[name]

    put("vllm.version", __version__="0.99.0+cpu")
    yield put
    for name in [n for n in sys.modules if n.startswith("harness.plugin.harness_vllm.")]:
        if name.rpartition(".")[2] in {"loading", "report"}:  # they have read the fake
            del sys.modules[name]


class Loader:
    """As vLLM's, as far as it is looked at."""

    def load_model(self, vllm_config: Any, model_config: Any, prefix: str = "") -> Any:  # noqa: ANN401  # a model
        del vllm_config, model_config, prefix
        return torch.nn.Linear(2, 2)


def test_what_is_there_is_found(fake: Fake) -> None:
    fake(LOADER, BaseModelLoader=Loader)
    need = Need((f"{LOADER}:BaseModelLoader.load_model",), takes=("vllm_config", "model_config"))
    assert find(need) is Loader.load_model


def test_the_first_place_that_exists_is_taken(fake: Fake) -> None:
    fake("vllm.old", thing=len)
    assert find(Need(("vllm.new:thing", "vllm.old:thing"))) is len


@pytest.mark.parametrize(
    ("place", "takes", "reason"),
    [
        ("vllm.nowhere:thing", (), "there is no vllm.nowhere.thing"),
        (f"{LOADER}:BaseModelLoader.renamed", (), f"there is no {LOADER}.BaseModelLoader.renamed"),
        (
            f"{LOADER}:BaseModelLoader.load_model",
            ("config",),
            "BaseModelLoader.load_model has no parameter 'config'",
        ),
        (f"{LOADER}:number", ("config",), "number cannot be called"),
    ],
)
def test_what_is_missing_is_named(
    fake: Fake, place: str, takes: tuple[str, ...], reason: str
) -> None:
    fake(LOADER, BaseModelLoader=Loader, number=3)
    with pytest.raises(NotFoundError) as caught:
        find(Need((place,), takes=takes))
    assert str(caught.value) == reason


def test_a_module_that_breaks_is_no_missing_module(fake: Fake, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import not_installed_anywhere\n")
    fake("vllm.deep").__path__ = [str(tmp_path)]
    with pytest.raises(NotFoundError, match="No module named 'not_installed_anywhere'"):
        find(Need(("vllm.deep.broken:thing",)))


def test_a_missing_adapter_is_left_out_with_its_reason() -> None:
    missing: dict[str, str] = {}
    adapter = Adapter("cpu-something", "tape", needs=(Need(("torch:no_such_thing",)),))
    assert not install(adapter, missing)
    assert missing == {"cpu-something": "there is no torch.no_such_thing"}


def test_an_adapter_that_fails_is_left_out_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails() -> object:
        return dict[str, object]()["emulation"]

    monkeypatch.setattr("harness.plugin.harness_vllm.tape.install", fails, raising=False)
    missing: dict[str, str] = {}
    assert not install(Adapter("cpu-something", "tape"), missing)
    assert missing == {"cpu-something": "KeyError: 'emulation'"}


def test_a_class_that_vllm_asks_more_of_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Asks(ABC):
        @abstractmethod
        def newly_asked(self) -> None: ...

    class Ours(Asks): ...

    monkeypatch.setattr("harness.plugin.harness_vllm.tape.PROVIDES", (Ours,), raising=False)
    missing: dict[str, str] = {}
    assert not install(Adapter("cpu-something", "tape"), missing)
    assert missing == {"cpu-something": "vLLM asks Ours for 'newly_asked', which it does not have"}


def test_what_keeps_the_server_safe_stops_it() -> None:
    """vLLM forgets a plugin whose import fails, but stops when its function raises."""
    needs = (Need(("torch:no_such_thing",)),)
    adapter = Adapter("api-key", "tape", needs=needs, is_mandatory=True)
    with pytest.raises(RuntimeError, match=r"^harness_vllm: api-key: there is no torch\.no_such"):
        install(adapter, {})


def test_a_server_with_a_key_and_no_middleware_is_stopped(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = SimpleNamespace(is_cpu=lambda: True, device_type="cpu")
    fake("vllm.platforms", current_platform=cpu)
    program = SimpleNamespace(name="vllm.entrypoints.openai.api_server")
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", program)
    monkeypatch.setenv("VLLM_API_KEY", "key")
    with pytest.raises(RuntimeError, match=f"api-key: there is no {MIDDLEWARE}"):
        harness_vllm.register()


def test_no_adapter_is_named_twice() -> None:
    names = [adapter.name for adapter in adapters.ADAPTERS]
    assert sorted(set(names)) == sorted(names)


def test_a_survey_names_all_that_an_empty_vllm_lacks(fake: Fake) -> None:
    del fake
    told = adapters.survey("cuda")
    assert told["found"] == ["own-address"]
    assert list(told["missing"]) == [
        a.name for a in adapters.ADAPTERS if not a.is_cpu_only and a.name != "own-address"
    ]
    assert told["mandatory"] == ["own-address", "api-key"]


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    monkeypatch.setenv("HARNESS_LOAD_REPORT", str(tmp_path / "load"))
    return lambda: json.loads((tmp_path / "load.rank0.json").read_bytes())


def test_a_vllm_whose_loading_is_not_seen_is_told_apart_from_one_without_the_plugin(
    fake: Fake, report: Callable[[], Any]
) -> None:
    del fake
    watch_loads(missing={})
    told = report()
    assert (told["vllm"], told["platform"], told["kernels"]) == ("0.99.0", "cpu", {})
    assert not told["is_reconciled"]
    assert told["missing"]["model-loading"].startswith(f"there is no {LOADER}")
    assert "num_unfilled" not in told


def test_a_load_that_is_not_followed_says_so(fake: Fake, report: Callable[[], Any]) -> None:
    class Seen(Loader): ...

    Seen.load_model = Loader.load_model  # type: ignore[method-assign]  # to be wrapped here alone
    fake(LOADER, BaseModelLoader=Seen)
    watch_loads(missing={})
    config = SimpleNamespace(model_config=object())
    Seen().load_model(vllm_config=config, model_config=config.model_config)
    told = report()
    assert told["model_class"] == "Linear"
    assert not told["is_reconciled"]
    assert {"load-report", "kernel-names", "kv-scales"} <= set(told["missing"])
    assert "model-loading" not in told["missing"]


def watch_loads(missing: dict[str, str]) -> None:
    from harness.plugin.harness_vllm.loading import (  # noqa: PLC0415  # it reads the fake vLLM
        watch_loads,
    )

    watch_loads(platform="cpu", missing=missing)
