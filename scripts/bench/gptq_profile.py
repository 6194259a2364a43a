"""Where the time of GPTQ goes, for the experts of one projection: torch's profile.

    python -m scripts.bench.gptq_profile --device cuda [--experts 256] [--rows 1024] [--width 2048]
        [--tokens 262144] [--algorithm local_hessian_gptq] [--lines 20]

Random inputs of all experts are summed up in one grouped product, as calibration does with a batch,
and random weights are quantized by what it found. All is done once before it is profiled. A call of
a kernel of one's own is shown by its name, on a GPU. `--experts 1` is a layer of a dense model.
"""

import argparse

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from harness.algorithms import SecondMoments, quantize_weights
from harness.artifacts import Algorithm, Rounding, Scales
from harness.calibrate.products import add_products

_ALGORITHMS = {
    "gptq": Algorithm(rounding=Rounding.GPTQ),
    "local_hessian": Algorithm(scales=Scales.LOCAL_HESSIAN),
    "local_hessian_gptq": Algorithm(scales=Scales.LOCAL_HESSIAN, rounding=Rounding.GPTQ),
    "mse_gptq": Algorithm(scales=Scales.MSE, rounding=Rounding.GPTQ),
}


def main() -> None:
    """Run twice, and print what took longest the second time."""
    typed = _typed()
    x_NI, weight_EOI = _drawn(typed)
    ends_E = torch.arange(1, typed.experts + 1, device=typed.device, dtype=torch.int32)
    ends_E = (ends_E * (typed.tokens // typed.experts)).int()
    _work(typed, x_NI, ends_E, weight_EOI)
    is_cuda = typed.device.startswith("cuda")
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda else [])]
    with profile(activities=activities) as found:
        _work(typed, x_NI, ends_E, weight_EOI)
        if is_cuda:
            torch.cuda.synchronize()
    order = "self_cuda_time_total" if is_cuda else "self_cpu_time_total"
    print(found.key_averages().table(sort_by=order, row_limit=typed.lines))


def _work(typed: argparse.Namespace, x_NI: Tensor, ends_E: Tensor, weight_EOI: Tensor) -> None:
    algorithm = _ALGORITHMS[typed.algorithm]
    size = typed.width if algorithm.needs_whole_inputs else 16
    number = (typed.width // size,) if size != typed.width else ()
    sums = torch.zeros(typed.experts, *number, size, size, device=typed.device)
    with record_function("sums of products"):
        add_products(sums, ends_E, x_NI)
    tokens_E = torch.diff(ends_E, prepend=ends_E.new_zeros(1))
    with record_function("quantize"):
        moments = SecondMoments(sums, tokens_E)
        quantize_weights(weight_EOI, algorithm, amax=[0.2] * typed.experts, moments=moments)


def _drawn(typed: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Return inputs that go together somewhat, and weights."""
    generator = torch.Generator(typed.device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=typed.device)

    x_NI = normal(typed.tokens, typed.width) + normal(typed.tokens, 1)
    weight_EOI = normal(typed.experts, typed.rows, typed.width) * 0.02
    return x_NI.bfloat16(), weight_EOI.bfloat16()


def _typed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--experts", type=int, default=256)
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--tokens", type=int, default=262144)
    parser.add_argument("--algorithm", choices=sorted(_ALGORITHMS), default="gptq")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--lines", type=int, default=20)
    return parser.parse_args()


if __name__ == "__main__":
    main()
