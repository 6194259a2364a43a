"""How many experts calibration leaves thin, and what that costs: a table over sizes and texts.

    python -m scripts.coverage.measure MODEL --windows windows.safetensors --out rows.json
    python -m scripts.coverage.table rows.json

Text is run through the unquantized model once, 16 samples at a time; each size draws its samples
from that. Then inputs are rounded with the scales that a draw gives (weights are rounded too), and
the answers to text that was held aside are compared with the unquantized model's. Two kinds of
scale: one of all experts of a layer, as checkpoints of fused experts have it, and one of each
expert; all other layers keep the scales of all samples then, so that what a row adds to the first
one is what the evidence on experts costs. At last all scales come from the draw.

Shapes: B windows, T tokens, V vocabulary.
"""

import argparse
import copy
import json
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from harness.models import experts_run, load_model, open_source, read_inventory
from harness.recipe import Request, load_recipe, plan
from scripts.canary.train import say
from scripts.coverage.inside import (
    Evidence,
    Rounding,
    Seeing,
    planned_parameters,
    round_weights,
    tapped,
)
from scripts.coverage.kinds import KINDS, THRESHOLDS

UNIT = 16
"""Samples that are seen together."""
_MOST_DRAWS = 8
"""Of samples; of what they show only the first few are asked what they cost."""


class Cost(NamedTuple):
    """What rounding does to held-out text, besides that of the weights."""

    divergence: float
    """Kullback-Leibler divergence of a token from the unquantized model's, in nats."""
    loss: float
    """Rise of the mean cross entropy of a token, in nats."""
    agreed: float
    """Share of tokens after which the same one stays the most likely."""
    clipped: float
    """Share of the rows of experts that lie beyond their scale's range."""


class Bench:
    """A model, texts to calibrate it with and texts to ask it about."""

    def __init__(self, folder: Path, windows: Path, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        source = open_source(str(folder))
        inventory = read_inventory(source)
        recipe = load_recipe(Request(model=str(folder), qformat="nvfp4", device=arguments.device))
        self.planned = planned_parameters(plan(recipe, inventory))
        dtype = torch.bfloat16
        self.model = load_model(source, inventory, device=arguments.device, dtype=dtype)
        parts = load_file(windows)
        self.texts = {k.partition(".")[2]: v for k, v in parts.items() if k.startswith("cal")}
        asked = [v[: arguments.asked] for k, v in sorted(parts.items()) if k.startswith("eval")]
        self.asked = torch.split(torch.cat(asked), arguments.batch)
        with torch.inference_mode(), experts_run(self.model, "grouped"):
            self.expected = [self.logits(self.model, ids_BT).bfloat16() for ids_BT in self.asked]

    def logits(self, model: nn.Module, ids_BT: Tensor) -> Tensor:
        """Return the logits [B, T, V]."""
        ids_BT = ids_BT.to(self._arguments.device).long()
        found: Tensor = model(input_ids=ids_BT, use_cache=False).logits
        return found

    def see(self, windows_WT: Tensor) -> list[Evidence]:
        """Return what each few windows show."""
        found = []
        with torch.inference_mode(), experts_run(self.model, "grouped"):
            for ids_BT in torch.split(windows_WT, UNIT):
                seeing = Seeing(self.planned, self.model.device)
                with tapped(self.model, list(self.planned), seeing):
                    self.model.base_model(
                        input_ids=ids_BT.to(self.model.device).long(), use_cache=False
                    )
                found.append(seeing.evidence())
        return found

    def rounded(self, form: str) -> nn.Module:
        """Return a copy of the model with rounded weights."""
        model = copy.deepcopy(self.model)
        round_weights(model, list(self.planned), form)
        return model

    def cost(self, model: nn.Module, rounding: Rounding) -> Cost:
        """Return what rounding costs over all that is asked."""
        sums_3 = torch.zeros(3, dtype=torch.float64, device=self.model.device)
        num_tokens = 0
        with torch.inference_mode(), experts_run(model, "grouped"):
            for ids_BT, expected_BTV in zip(self.asked, self.expected, strict=True):
                with tapped(model, list(self.planned), rounding):
                    logits_BTV = self.logits(model, ids_BT)
                for row in range(len(ids_BT)):  # not all logits at once in float32
                    wanted = expected_BTV[row].float().log_softmax(-1)
                    given = logits_BTV[row].float().log_softmax(-1)
                    told = ids_BT[row, 1:, None].to(wanted.device).long()
                    sums_3[0] += (wanted.exp() * (wanted - given)).sum()
                    sums_3[1] += (wanted[:-1].gather(1, told) - given[:-1].gather(1, told)).sum()
                    sums_3[2] += (wanted.argmax(-1) == given.argmax(-1)).sum()
                    num_tokens += len(wanted)
        clipped = rounding.beyond.item() / max(1, rounding.rows)
        divergence, loss, agreed = (sums_3 / num_tokens).tolist()
        return Cost(divergence, loss, agreed, clipped)

    def loss(self) -> float:
        """Return the unquantized model's mean cross entropy of a token, in nats."""
        found = []
        for ids_BT, expected_BTV in zip(self.asked, self.expected, strict=True):
            told = ids_BT[:, 1:].to(self.model.device).long()
            for row, expected_TV in enumerate(expected_BTV):
                found.append(nn.functional.cross_entropy(expected_TV[:-1].float(), told[row]))
        return torch.stack(found).mean().item()


def thinness(evidence: Evidence) -> dict[str, float]:
    """Return the share of projections that saw fewer tokens than each threshold, and the fewest."""
    tokens = torch.cat(list(evidence.tokens.values()))
    shares = {f"under {few}": (tokens < few).float().mean().item() for few in THRESHOLDS}
    middle = {"median": tokens.median().item(), "busiest": tokens.max().item()}
    return shares | {"fewest": tokens.min().item()} | middle


def draws(units: Sequence[Evidence], size: int) -> list[Evidence]:
    """Return the evidence of samples of a size, drawn apart from each other."""
    number = max(1, size // UNIT)
    many = min(_MOST_DRAWS, len(units) // number)
    return [reduce(add, units[at * number : (at + 1) * number]) for at in range(many)]


def mixed(texts: Mapping[str, Tensor], most: int) -> Tensor:
    """Return windows of all domains, in one order drawn at random."""
    windows_WT = torch.cat(list(texts.values()))
    generator = torch.Generator().manual_seed(1)
    return windows_WT[torch.randperm(len(windows_WT), generator=generator)][:most]


def cases(bench: Bench, arguments: argparse.Namespace) -> dict[str, list[Evidence]]:
    """Return the evidence of each row of the table: sizes of mixed text, then narrow texts."""
    windows_WT = mixed(bench.texts, arguments.most)
    units = bench.see(windows_WT)
    size, found = UNIT, {}
    while size // UNIT <= len(units):
        found[f"mixed, {size} samples"] = draws(units, size)
        size *= 2
    everything = reduce(add, units)
    found = {f"mixed, all {len(windows_WT)} samples": [everything], **found}
    for domain in arguments.alone:
        some = bench.texts[domain][: arguments.narrow]
        found[f"{domain} alone, {len(some)} samples"] = [reduce(add, bench.see(some))]
    one = windows_WT[:1].expand(arguments.narrow, -1)
    found[f"one sample, {arguments.narrow} times"] = [reduce(add, bench.see(one))]
    token = windows_WT[:1, :1].expand(arguments.narrow, windows_WT.shape[1])
    found[f"one token, {arguments.narrow} samples of it"] = [reduce(add, bench.see(token))]
    return found


def _rounding(form: str, kind: str, seen: Evidence, everything: Evidence) -> Rounding:
    others = seen if kind == KINDS[2] else everything
    return Rounding(form, seen, others, each=kind == KINDS[1])


def measure(bench: Bench, arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Return the rows of the table."""
    found = cases(bench, arguments)
    (everything,) = next(iter(found.values()))
    rows: dict[str, dict[str, object]] = {}
    for name, evidences in found.items():
        seen = [thinness(one) for one in evidences]
        means = {key: sum(one[key] for one in seen) / len(seen) for key in seen[0]}
        rows[name] = {"text": name, "draws": len(evidences), **means}
    for form in arguments.formats:
        model = bench.rounded(form)
        for name, evidences in found.items():
            some = evidences[: arguments.draws]
            for kind in KINDS if form == arguments.formats[0] else KINDS[:2]:
                costs = [bench.cost(model, _rounding(form, kind, one, everything)) for one in some]
                rows[name][f"{form}, {kind}"] = [one._asdict() for one in costs]
                say(f"{name}: {form}, {kind}: {costs[0]}")
        del model
    return list(rows.values())


def main() -> None:
    """Measure and write the rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--windows", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--most", type=int, default=4096, help="samples of mixed text")
    parser.add_argument("--narrow", type=int, default=512, help="samples of narrow texts")
    parser.add_argument("--alone", nargs="*", default=["en", "ja", "python", "questions"])
    parser.add_argument("--draws", type=int, default=2, help="of a size, whose cost is measured")
    parser.add_argument("--asked", type=int, default=8, help="windows of each domain")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--formats", nargs="+", default=["nvfp4", "fp8"])
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    bench = Bench(arguments.model, arguments.windows, arguments)
    rows = measure(bench, arguments)
    report = {"loss of the unquantized model": bench.loss(), "rows": rows}
    arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
