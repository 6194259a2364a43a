"""What a machine has, which engines it has, and what calibration on a GPU is slower without."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch

from harness.serve import Diagnosis, doctor, examine
from tests.serve.stand_in import make_environment

PACKAGE = "flash-linear-attention"
H200 = "NVIDIA H200 (sm_90)"
OTHERS = pytest.mark.parametrize(
    ("name", "variable"), [("SGLang", "HARNESS_SGLANG"), ("TensorRT-LLM", "HARNESS_TRTLLM")]
)


Examined = Callable[[str], Diagnosis]


@pytest.fixture
def diagnosis(monkeypatch: pytest.MonkeyPatch) -> Examined:
    """What is said of one thing, on a machine whose docker daemon nobody asks."""
    docker = Diagnosis(name="docker", ok=True, found="", fix="")
    monkeypatch.setattr(doctor, "_docker", lambda: docker)

    def examined(name: str) -> Diagnosis:
        (found,) = (one for one in examine() if one.name == name)
        return found

    return examined


def make_engine(folder: Path, *, gpus: list[str]) -> Path:
    """Return an environment that answers the probe of any engine."""
    facts = {"version": "1.2.3", "torch": "2.11.0", "python_version": "3.12.0", "gpus": gpus}
    of_each = "{'algorithms': []} if 'trtllm' in sys.argv[2] else {'platform': 'cuda'}"
    told_by = folder / "told.py"
    told_by.write_text(
        f"import json, sys\nprint(json.dumps({facts!r} | ({of_each})))\n", encoding="utf-8"
    )
    return make_environment(folder / "env", told_by).parents[1]


def test_a_machine_without_a_gpu_is_not_told_of_kernels_for_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert list(doctor._fused_kernels()) == []  # noqa: SLF001  # a GPU's part alone


@pytest.mark.parametrize("is_there", [True, False])
def test_a_machine_with_a_gpu_is_told_of_the_package_for_linear_attention(
    monkeypatch: pytest.MonkeyPatch, *, is_there: bool
) -> None:
    def version(name: str) -> str:
        if not is_there:
            raise PackageNotFoundError(name)
        return "0.6.0"

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(doctor, "version", version)
    (found,) = doctor._fused_kernels()  # noqa: SLF001  # as above
    assert (found.name, found.ok) == (PACKAGE, is_there)
    assert found.fix == f"pip install {PACKAGE}"


@OTHERS
def test_an_engine_that_nobody_named_is_missing_and_for_whom_it_is_is_said(
    monkeypatch: pytest.MonkeyPatch, diagnosis: Examined, name: str, variable: str
) -> None:
    monkeypatch.delenv(variable, raising=False)
    found = diagnosis(name)
    assert not found.ok
    assert found.found.startswith(f"${variable} names none; needed for --engine ")
    assert variable in found.fix


@OTHERS
def test_an_engine_that_is_named_is_shown_with_its_version_and_place(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    diagnosis: Examined,
    name: str,
    variable: str,
) -> None:
    place = make_engine(tmp_path, gpus=[H200])
    monkeypatch.setenv(variable, str(place))
    found = diagnosis(name)
    assert found.ok, found
    assert found.found.startswith("1.2.3 (")
    assert "torch 2.11.0, Python 3.12.0" in found.found
    assert str(place) in found.found


@OTHERS
def test_an_engine_without_a_gpu_to_serve_on_is_not_ok(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    diagnosis: Examined,
    name: str,
    variable: str,
) -> None:
    monkeypatch.setenv(variable, str(make_engine(tmp_path, gpus=[])))
    found = diagnosis(name)
    assert not found.ok
    assert found.found.startswith("1.2.3 (")
    assert found.found.endswith("the driver shows no GPU")


@OTHERS
def test_a_named_place_without_the_engine_is_told_in_its_own_words(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    diagnosis: Examined,
    name: str,
    variable: str,
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "nowhere"))
    found = diagnosis(name)
    assert not found.ok
    assert f"${variable} '{tmp_path / 'nowhere'}' is neither a Python" in found.found
