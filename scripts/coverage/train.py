"""Train a mixture of 256 experts from scratch on real text, on one GPU: the canary, scaled up.

    python -m scripts.coverage.train --corpus corpus --out model --seconds 180

The canary's family with 256 experts of which a token takes 8, as the 35B-A3B has them, in fewer and
narrower layers. It learns from text of several languages, source code, and the canary's questions
for as many seconds as it is given, so that what its routers do is learned, not drawn. `--balance`
weighs the loss that keeps experts equally busy: 0.001 is the family's own, 0.01 the canary's.

Shapes: B rows, T tokens, V vocabulary.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.models.qwen3_5_moe.modeling_qwen3_5_moe import (
    Qwen3_5MoeForConditionalGeneration as Model,
)

from scripts.canary.folder import config_json
from scripts.canary.train import BalanceLoss, Masters, say
from scripts.coverage.corpus import END, TOKENS, Windows, read_texts, train_tokenizer, windows_of

_TRIED = 6
"""Steps that are run to see how many fit into the time."""
_MARGIN = 1.15
"""By how much a step may take longer than those."""
_INTERVAL = 4
"""Of layers with full attention."""


def configure(arguments: argparse.Namespace) -> dict[str, object]:
    """Return the canary's configuration at another size."""
    config = config_json()
    layers, hidden = arguments.layers, arguments.hidden
    full = [index % _INTERVAL == _INTERVAL - 1 for index in range(layers)]
    config["text_config"] |= {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "layer_types": ["full_attention" if one else "linear_attention" for one in full],
        "num_attention_heads": max(2, hidden // 64),
        "num_key_value_heads": 2,
        "linear_num_key_heads": max(1, hidden // 128),
        "linear_num_value_heads": max(2, hidden // 64),
        "num_experts": arguments.experts,
        "num_experts_per_tok": arguments.top,
        "moe_intermediate_size": arguments.width,
        "shared_expert_intermediate_size": arguments.width,
        "vocab_size": arguments.vocabulary,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": 0,
        "mtp_num_hidden_layers": 0,
    }
    config["vision_config"]["out_hidden_size"] = hidden
    for name in ("image_token_id", "video_token_id", "vision_start_token_id"):
        config[name] = 1
    config["vision_end_token_id"] = 1
    return config


def new_model(config: dict[str, object], *, seed: int, device: str) -> Model:
    """Build the model with seeded random weights, in bfloat16."""
    torch.manual_seed(seed)
    settings = dict(config)
    built = AutoConfig.for_model(str(settings.pop("model_type")), **settings)
    build = AutoModelForImageTextToText.from_config
    model = build(built, dtype=torch.bfloat16)  # type: ignore[no-untyped-call]
    return model.to(device=device)  # type: ignore[no-any-return]


def loss_of(model: Model, ids_BT: Tensor) -> Tensor:
    """Return the mean cross entropy of the next tokens."""
    text, head = model.model.language_model, model.lm_head
    logits_BTV = head(text(input_ids=ids_BT[:, :-1], use_cache=False).last_hidden_state)
    found: Tensor = nn.functional.cross_entropy(
        logits_BTV.flatten(0, 1).float(), ids_BT[:, 1:].flatten()
    )
    return found


class Trainer:
    """Steps a text model over windows, in another order each time they have all been seen."""

    def __init__(self, model: Model, windows_WT: Tensor, *, rows: int, balance: float) -> None:
        self.model, self.windows_WT = model, windows_WT.to(model.device)
        self.rows, self.weight = rows, balance
        self.balance = BalanceLoss(model)
        self.parameters = [*model.model.language_model.parameters(), *model.lm_head.parameters()]

    def step(self, number: int, masters: Masters | None = None) -> Tensor:
        """Run one batch, and step the weights where there are masters; return its loss."""
        epoch, first = divmod(number * self.rows, len(self.windows_WT) - self.rows)
        seed = torch.Generator().manual_seed(epoch)
        order_W = torch.randperm(len(self.windows_WT), generator=seed)
        chosen_B = order_W[first : first + self.rows].to(self.model.device)
        loss = loss_of(self.model, self.windows_WT[chosen_B].long())
        torch.autograd.backward(loss + self.weight * self.balance.take())
        if masters is not None:
            masters.step()
        return loss.detach()

    def step_seconds(self) -> float:
        """Return the seconds of a step; nothing is learned."""
        seconds = 0.0
        for number in range(_TRIED):
            started = time.perf_counter()
            self.step(number).item()
            seconds = time.perf_counter() - started
        for parameter in self.parameters:
            parameter.grad = None
        return seconds


def train(trainer: Trainer, *, seconds: float, learning_rate: float) -> dict[str, float]:
    """Train in place for about `seconds`."""
    num_steps = max(4, int(seconds / (_MARGIN * trainer.step_seconds())))
    masters = Masters(trainer.parameters, learning_rate, num_steps)
    started, recent = time.perf_counter(), torch.zeros((), device=trainer.model.device)
    for number in range(num_steps):
        loss = trainer.step(number, masters)
        recent = torch.lerp(recent, loss, 0.02 if number else 1.0)
        if (number + 1) % max(1, num_steps // 10) == 0:
            say(f"step {number + 1}/{num_steps}  loss {recent.item():.3f}")
    trainer.balance.close()
    tokens = num_steps * trainer.rows * (TOKENS - 1)
    took_s = time.perf_counter() - started
    return {"steps": num_steps, "tokens": tokens, "loss": recent.item(), "seconds": took_s}


def write(model: Model, config: dict[str, object], tokenizer: Tokenizer, out: Path) -> None:
    """Write the model's folder."""
    out.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(state, out / "model.safetensors", metadata={"format": "pt"})
    (out / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    tokenizer.save(str(out / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "pad_token": END}
    (out / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def write_windows(domains: dict[str, Windows], file: Path) -> None:
    """Keep the windows that do not train."""
    kept = {
        f"{part}.{domain}": getattr(windows, part)
        for domain, windows in domains.items()
        for part in ("calibrate", "evaluate")
    }
    save_file(kept, file)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--balance", type=float, nargs="+", default=[0.001, 0.01])
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--experts", type=int, default=256)
    parser.add_argument("--top", type=int, default=8)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--vocabulary", type=int, default=16384)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--code-characters", type=int, default=40_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda")
    return parser.parse_args()


def main() -> None:
    """Train, write the folder, and print what was run."""
    arguments = parse_arguments()
    texts = read_texts(arguments.corpus, code_characters=arguments.code_characters)
    tokenizer = train_tokenizer(texts, vocabulary=arguments.vocabulary)
    domains = {name: windows_of(tokenizer, found) for name, found in texts.items()}
    for name, windows in domains.items():
        say(f"{name}: windows {[len(part) for part in windows]}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_windows(domains, arguments.out / "windows.safetensors")
    training_WT = torch.cat([windows.train for windows in domains.values()])
    config = configure(arguments)
    for balance in arguments.balance:
        model = new_model(config, seed=arguments.seed, device=arguments.device)
        say(f"{sum(p.numel() for p in model.parameters()) / 1e6:.0f} M parameters")
        trainer = Trainer(model, training_WT, rows=arguments.rows, balance=balance)
        learning_rate, seconds = arguments.learning_rate, arguments.seconds
        report = train(trainer, seconds=seconds, learning_rate=learning_rate)
        write(model, config, tokenizer, arguments.out / f"balance-{balance:g}")
        sys.stdout.write(json.dumps({"balance": balance} | report) + "\n")


if __name__ == "__main__":
    main()
