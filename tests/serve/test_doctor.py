"""What a machine has, and what calibration on a GPU is slower without."""

from importlib.metadata import PackageNotFoundError

import pytest
import torch

from harness.serve import doctor

PACKAGE = "flash-linear-attention"


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
