"""A version that was not tested is refused by name."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from harness.plugin import harness_vllm
from harness.plugin.harness_vllm.versions import SUPPORTED, check


@pytest.mark.parametrize(
    ("version", "platform"), [("0.32.0+cpu", "cpu"), ("0.32.0", "cpu"), ("0.25.0", "cuda")]
)
def test_a_known_pair_passes(version: str, platform: str) -> None:
    check(version, platform)


@pytest.mark.parametrize(
    ("version", "platform"),
    [("0.32.1", "cpu"), ("0.25.0", "cpu"), ("0.32.0", "cuda"), ("0.25.0rc1", "cuda"), ("dev", "")],
)
def test_another_pair_is_refused_by_name(version: str, platform: str) -> None:
    with pytest.raises(RuntimeError) as caught:
        check(version, platform)
    message = str(caught.value)
    assert f"'{version}' on '{platform}'" in message
    assert all(known in message for known in SUPPORTED)
    assert "\n" not in message


def test_registering_stops_on_an_unknown_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM forgets a plugin whose import fails, but stops when its function raises."""
    modules = {name: ModuleType(name) for name in ("vllm", "vllm.platforms", "vllm.version")}
    cpu = SimpleNamespace(is_cpu=lambda: True, device_type="cpu")
    vars(modules["vllm.platforms"])["current_platform"] = cpu
    vars(modules["vllm.version"])["__version__"] = "0.99.0+cpu"
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    with pytest.raises(RuntimeError, match=r"vLLM '0\.99\.0\+cpu' on 'cpu' is not known"):
        harness_vllm.register()
