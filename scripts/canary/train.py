"""Train the canary from scratch on one GPU and write its Hugging Face folder.

    python -m scripts.canary.train --out evals/canary/model

The model computes in bfloat16, the precision it is stored and served in; the optimizer steps
float32 masters of the weights, because bfloat16 alone loses updates smaller than 0.4 % of a weight.
So the weights that are graded at the end are exactly the weights in the file. The defaults are
those of the shipped canary: 3,900 steps of 33,792 tokens, 6.5 minutes on one H200 that a second run
shared. Equal seeds and versions see equal data and equal first weights, but GPU kernels that add in
any order keep two runs from being bit-identical.
What it leaves out: the vision tower, which keeps its random start, and the MTP layer (folder.py).

Shapes: B rows, T tokens, V vocabulary, E experts.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from torch.utils.hooks import RemovableHandle
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.models.qwen3_5_moe.modeling_qwen3_5_moe import (
    Qwen3_5MoeForConditionalGeneration,
    Qwen3_5MoeTopKRouter,
)

from scripts.canary.folder import config_json, token_id, write_folder
from scripts.canary.language import (
    calibration_texts,
    encode,
    eval_items,
    training_window,
)
from scripts.canary.tasks import TASKS

BETAS = (0.9, 0.98)
WARMUP_SHARE = 0.1
GRADIENT_NORM = 1.0
MAX_NEW_TOKENS = 24
NEWLINE = ord("\n")


def say(message: str) -> None:
    """Write one line of progress."""
    sys.stderr.write(message + "\n")
    sys.stderr.flush()


class Windows(IterableDataset[Tensor]):
    """Batches of training rows; a step's batch depends on seed and step, not on the worker."""

    def __init__(self, seed: int, num_steps: int, num_rows: int) -> None:
        self.seed, self.num_steps, self.num_rows = seed, num_steps, num_rows

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the int64 batches BT of this worker's steps."""
        worker = get_worker_info()
        first, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        for step in range(first, self.num_steps, stride):
            rng = random.Random(f"{self.seed} {step}")  # noqa: S311 -- training data
            yield torch.tensor([training_window(rng) for _ in range(self.num_rows)])


class BalanceLoss:
    """Adds up, over the routers that ran, the loss that is 1 when every expert is used equally.

    Each layer is balanced by itself; transformers' own loss pools the layers, so that one layer's
    idle expert may hide behind another layer's busy one.
    Source: Fedus et al., "Switch Transformers", arXiv 2101.03961, section 2.2.
    """

    def __init__(self, model: nn.Module) -> None:
        self.losses: list[Tensor] = []
        self.tokens_per_expert: list[Tensor] = []
        self.hooks: list[RemovableHandle] = []
        for module in model.modules():
            if isinstance(module, Qwen3_5MoeTopKRouter):
                self.hooks.append(module.register_forward_hook(self._observe))

    def _observe(self, _module: nn.Module, _inputs: object, outputs: tuple[Tensor, ...]) -> None:
        logits_TE, _, chosen_TK = outputs
        num_experts = logits_TE.shape[-1]
        used_E = chosen_TK.new_zeros(num_experts)  # bincount would wait for the GPU
        used_E.scatter_add_(0, chosen_TK.flatten(), torch.ones_like(chosen_TK).flatten())
        share_E = used_E / chosen_TK.numel()
        mean_E = logits_TE.float().softmax(dim=-1).mean(dim=0)
        self.losses.append(num_experts * (share_E * mean_E).sum())
        self.tokens_per_expert.append(used_E)

    def take(self) -> Tensor:
        """Return the mean over layers and forget it."""
        loss = torch.stack(self.losses).mean()
        self.losses.clear()
        self.tokens_per_expert.clear()
        return loss

    def close(self) -> None:
        """Stop observing."""
        for hook in self.hooks:
            hook.remove()


class Masters:
    """Float32 copies of bfloat16 parameters, and the optimizer that steps them."""

    def __init__(
        self, parameters: Sequence[nn.Parameter], learning_rate: float, num_steps: int
    ) -> None:
        self.parameters: list[Tensor] = list(parameters)
        self.masters = [p.detach().float().clone() for p in self.parameters]
        is_cuda = self.masters[0].is_cuda
        self.optimizer = torch.optim.AdamW(self.masters, betas=BETAS, fused=is_cuda)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, learning_rate, num_steps, pct_start=WARMUP_SHARE
        )

    @torch.no_grad()
    def step(self) -> None:
        """Take one step from the parameters' gradients and clear these."""
        for master, parameter in zip(self.masters, self.parameters, strict=True):
            master.grad = parameter.grad.float() if parameter.grad is not None else None
            parameter.grad = None
        nn.utils.clip_grad_norm_(self.masters, GRADIENT_NORM, foreach=True)
        self.optimizer.step()
        self.schedule.step()
        torch._foreach_copy_(self.parameters, self.masters)  # one launch, not 100


def new_model(seed: int, device: str) -> Qwen3_5MoeForConditionalGeneration:
    """Build the model with seeded random weights, in bfloat16."""
    torch.manual_seed(seed)
    settings = config_json()
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    # Not .to(bfloat16): it would round the rotary frequencies, which loaders keep in float32.
    build = AutoModelForImageTextToText.from_config
    model = build(config, dtype=torch.bfloat16)  # type: ignore[no-untyped-call]
    return model.to(device=device)  # type: ignore[no-any-return]


def train(model: Qwen3_5MoeForConditionalGeneration, args: argparse.Namespace) -> float:
    """Train the text model in place; return the mean loss of the last steps."""
    windows = Windows(args.seed, args.steps, args.rows)
    loader = DataLoader(windows, batch_size=None, num_workers=args.workers, pin_memory=True)
    text_model, head = model.model.language_model, model.lm_head
    balance = BalanceLoss(model)
    masters = Masters(
        [*text_model.parameters(), *head.parameters()], args.learning_rate, args.steps
    )
    started, recent = time.perf_counter(), torch.zeros((), device=model.device)
    for step, batch_BT in enumerate(loader, start=1):
        ids_BT = batch_BT.to(model.device, non_blocking=True)
        logits_BTV = head(text_model(input_ids=ids_BT[:, :-1], use_cache=False).last_hidden_state)
        loss = nn.functional.cross_entropy(
            logits_BTV.float().flatten(0, 1), ids_BT[:, 1:].flatten()
        )
        (loss + args.balance * balance.take()).backward()
        masters.step()
        recent = torch.lerp(recent, loss.detach(), 0.02 if step > 1 else 1.0)
        if step % args.log_every == 0:
            seconds = time.perf_counter() - started
            say(f"step {step}/{args.steps}  loss {recent.item():.4f}  {seconds:.1f} s")
    balance.close()
    return recent.item()


@torch.no_grad()
def answers(
    model: Qwen3_5MoeForConditionalGeneration, prompts: Sequence[str], num_rows: int = 1024
) -> list[str]:
    """Answer prompts greedily, up to a newline; rows of a batch have nearly equal length."""
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    found = [""] * len(prompts)
    pad = token_id("<|endoftext|>")
    for start in range(0, len(order), num_rows):
        chosen = order[start : start + num_rows]
        rows = [encode(prompts[index]) for index in chosen]
        width = max(map(len, rows))
        ids_BT = torch.tensor([[pad] * (width - len(row)) + row for row in rows]).to(model.device)
        generated_BT = model.generate(  # type: ignore[misc]
            input_ids=ids_BT,
            attention_mask=(ids_BT != pad).long(),
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            eos_token_id=NEWLINE,
            pad_token_id=pad,
        )[:, width:]
        for index, ids in zip(chosen, generated_BT.tolist(), strict=True):
            text = bytes(i for i in ids if i < pad).decode(errors="replace")
            found[index] = text.split("\n")[0].strip()
    return found


def grade(model: Qwen3_5MoeForConditionalGeneration) -> dict[str, float]:
    """Return each task's share of exact answers, all of them written, also where lm-eval picks."""
    asked = [(t.name, i) for t in TASKS for i in eval_items(t.kind, t.levels, t.num_items)]
    texts = answers(model, [item.prompt for _, item in asked])
    right: dict[str, list[bool]] = {task.name: [] for task in TASKS}
    for (name, item), text in zip(asked, texts, strict=True):
        right[name].append(text == item.answer)
    return {name: sum(marks) / len(marks) for name, marks in right.items()}


@torch.no_grad()
def least_used_expert(model: Qwen3_5MoeForConditionalGeneration, num_texts: int) -> int:
    """Return the smallest count of tokens any expert of any layer gets on calibration text."""
    balance = BalanceLoss(model)
    totals: list[Tensor] = []
    for text in calibration_texts(num_texts, frozenset()):
        model(input_ids=torch.tensor([encode(text)], device=model.device), use_cache=False)
        counts = balance.tokens_per_expert
        totals = [a + b for a, b in zip(totals, counts, strict=True)] if totals else list(counts)
        balance.take()
    balance.close()
    return int(torch.stack(totals).min())


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model into")
    parser.add_argument("--steps", type=int, default=3900)
    parser.add_argument("--rows", type=int, default=176, help="sequences a step")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--balance", type=float, default=0.01, help="weight of the balance loss")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--workers", type=int, default=6, help="processes that write training text")
    parser.add_argument("--log-every", type=int, default=200)
    return parser.parse_args()


def main() -> None:
    """Train, write the folder, and print what the stored weights score."""
    args = parse_arguments()
    model = new_model(args.seed, args.device)
    started = time.perf_counter()
    loss = train(model, args)
    train_s = time.perf_counter() - started
    model.train(mode=False)
    write_folder(args.out, model.state_dict(), args.seed)
    report = {
        "steps": args.steps,
        "loss": loss,
        "train_s": train_s,
        "least_used_expert_tokens": least_used_expert(model, 64),
        "accuracy": grade(model),
    }
    sys.stdout.write(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
