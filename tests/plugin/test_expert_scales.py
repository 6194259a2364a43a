"""Every expert's scale of the files is held against what the kernel multiplies with."""

import importlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

NUM, OUT, IN = 6, 8, 16
FP8 = torch.float8_e4m3fn
_FOUR = 448.0


class RoutedExperts(nn.Module):
    """As vLLM's, as far as it is looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.local_num_experts = NUM
        self.quant_method: Any = SimpleNamespace(moe_quant_config=None)


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module under test, with vLLM's classes stood in for."""
    for name, content in (
        ("vllm.model_executor.layers.fused_moe", {"RoutedExperts": RoutedExperts}),
        ("vllm.model_executor.layers.linear", {"LinearBase": nn.Linear}),
    ):
        path = name.split(".")
        for end in range(1, len(path) + 1):
            part = ".".join(path[:end])
            if part not in sys.modules:
                monkeypatch.setitem(sys.modules, part, ModuleType(part))
        vars(sys.modules[name]).update(content)
    names = [f"harness.plugin.harness_vllm.{n}" for n in ("parts", "expert_scales")]
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module(names[1])
    for name in names:
        sys.modules.pop(name, None)


class Loaded:
    """A layer of FP8 experts, loaded from scales that differ; gate's and up's too."""

    def __init__(self, looked: Any) -> None:  # noqa: ANN401  # a module
        generator = torch.Generator().manual_seed(0)
        self.kept: list[Tensor] = []
        self.layer = RoutedExperts()
        self.model = nn.ModuleDict({"experts": self.layer})
        self.gate = torch.linspace(0.01, 0.06, NUM)
        self.up = self.gate.flip(0).clone()
        self.down = torch.linspace(0.5, 0.1, NUM)
        self.codes = torch.randn(NUM, 2 * OUT, IN, generator=generator).mul(100).to(FP8)
        self.layer.w13_weight = nn.Parameter(self.codes.clone(), requires_grad=False)
        self.layer.w2_weight = nn.Parameter(self.codes[:, :IN].clone(), requires_grad=False)
        tape = looked.Tape()
        scalars: dict[str, float] = {}
        for local, named in (
            ("w13_weight_scale", {"gate_proj": self.gate, "up_proj": self.up}),
            ("w2_weight_scale", {"down_proj": self.down}),
            ("w13_input_scale", {"gate_proj": self.down, "up_proj": self.down}),
        ):
            kind = local.partition("_")[2]
            self._load(tape, scalars, local, kind, named)
        self.sides = looked.read_sides(self.model, tape, scalars)
        self.reached: Callable[[], Any] = lambda: looked.reached(self.model, self.sides)

    def _load(
        self,
        tape: Any,  # noqa: ANN401  # a class of the module under test
        scalars: dict[str, float],
        local: str,
        kind: str,
        named: dict[str, Tensor],
    ) -> None:
        target = nn.Parameter(torch.ones(NUM, len(named)), requires_grad=False)
        setattr(self.layer, local, target)
        tape.watch([target])
        for column, (projection, values) in enumerate(named.items()):
            for expert in range(NUM):
                name = f"model.layers.0.experts.{expert}.{projection}.{kind}"
                value = values[expert].clone()
                self.kept.append(value)  # a tape knows tensors by their memory
                scalars[name] = float(value)
                tape.mark(name, value)
                with tape:
                    target.data[expert, column].copy_(value)

    def process(self, **config: Tensor | None) -> None:
        """Do as vLLM does: gate and up are rounded again to the larger of their scales."""
        merged = torch.maximum(self.gate, self.up)
        self.layer.w13_weight.data = again(self.codes, (self.gate, self.up), merged)
        known = {"w1_scale": merged, "w2_scale": self.down, "a1_scale": self.down.max()}
        self.layer.quant_method.moe_quant_config = SimpleNamespace(**(known | config))


def again(codes: Tensor, scales: tuple[Tensor, ...], to: Tensor) -> Tensor:
    """Round codes again, from the scales of their parts to one an expert."""
    parts = codes.chunk(len(scales), dim=1)
    exact = [p.float() * s[:, None, None] for p, s in zip(parts, scales, strict=True)]
    whole = torch.cat(exact, dim=1) / to[:, None, None]
    return whole.clamp(-_FOUR, _FOUR).to(FP8)


@pytest.fixture
def loaded(looked: Any) -> Loaded:  # noqa: ANN401  # a module
    return Loaded(looked)


def test_scales_that_arrive_are_own(loaded: Loaded) -> None:
    loaded.process()
    told = loaded.reached()
    assert told["weights"] == {
        "num": 2 * NUM,
        "num_own": 2 * NUM,
        "num_merged": 0,
        "num_wrong": 0,
        "examples": [],
    }


def test_a_vector_that_is_padded_is_looked_at_as_far_as_there_are_experts(loaded: Loaded) -> None:
    padded = torch.cat([loaded.down, torch.zeros(3)])
    loaded.process(w2_scale=padded)
    assert loaded.reached()["weights"]["num_own"] == 2 * NUM


@pytest.mark.parametrize("inputs", [torch.tensor(0.3), torch.linspace(0.2, 0.4, NUM)])
def test_a_vector_into_which_the_inputs_scale_is_folded_is_own(
    loaded: Loaded, inputs: Tensor
) -> None:
    merged = torch.maximum(loaded.gate, loaded.up)
    loaded.process(g1_alphas=merged * inputs, a1_gscale=1 / inputs)
    assert loaded.reached()["weights"]["num_own"] == 2 * NUM


def test_one_experts_scale_on_all_is_wrong_and_named(loaded: Loaded) -> None:
    loaded.process(w2_scale=loaded.down[0].expand(NUM))
    told = loaded.reached()["weights"]
    assert (told["num_own"], told["num_wrong"]) == (NUM + 1, NUM - 1)
    assert "experts.5.w2_weight_scale" in told["examples"]


def test_one_experts_scale_in_the_kernels_own_vector_is_wrong(loaded: Loaded) -> None:
    """A backend may fold its vector itself, from scales that are right."""
    loaded.process()
    alphas = loaded.down[0].expand(NUM).clone()
    loaded.layer.quant_method.moe_kernel = SimpleNamespace(
        fused_experts=SimpleNamespace(_g2_alphas=alphas)
    )
    assert loaded.reached()["weights"]["num_wrong"] == NUM - 1


def test_a_merge_whose_codes_are_rounded_again_is_right(loaded: Loaded) -> None:
    largest = loaded.down.max().expand(NUM)
    loaded.process(w2_scale=largest)
    loaded.layer.w2_weight.data = again(loaded.codes[:, :IN], (loaded.down,), largest)
    told = loaded.reached()["weights"]
    assert (told["num_wrong"], told["num_merged"]) == (0, NUM - 1)


def test_gate_and_up_under_one_scale_with_the_codes_of_two_are_wrong(loaded: Loaded) -> None:
    loaded.process()
    loaded.layer.w13_weight.data = loaded.codes
    assert loaded.reached()["weights"]["num_wrong"] == NUM


def test_inputs_that_share_the_largest_scale_are_merged(loaded: Loaded) -> None:
    loaded.process()
    told = loaded.reached()["inputs"]
    assert (told["num_own"], told["num_merged"], told["num_wrong"]) == (1, NUM - 1, 0)


def test_inputs_that_share_a_smaller_scale_are_wrong(loaded: Loaded) -> None:
    loaded.process(a1_scale=loaded.down.min())
    assert loaded.reached()["inputs"]["num_wrong"] == NUM - 1


def test_inputs_without_a_scale_are_not_counted(loaded: Loaded) -> None:
    loaded.process(a1_scale=None)
    assert "inputs" not in loaded.reached()


@pytest.mark.parametrize("config", [None, SimpleNamespace(w1_scale=torch.ones(2))])
def test_a_method_that_keeps_its_scales_elsewhere_is_not_guessed(
    loaded: Loaded, config: object
) -> None:
    loaded.layer.quant_method.moe_quant_config = config
    with pytest.raises(LookupError):
        loaded.reached()
