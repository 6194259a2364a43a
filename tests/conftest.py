"""Small random models of four families in the Hugging Face layout, and text to calibrate them.

transformers' own save_pretrained writes the per-expert layouts, so names and shapes on the disk do
not come from the code under test. The Hub's fused layout of Qwen3.5-MoE, which save_pretrained no
longer writes, is the running model's own state dict. All are bf16 and seeded.
"""

import json
import logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3_5MoeConfig,
    Qwen3_5MoeForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from harness.artifacts import CalibrationStats, Inventory, QuantPlan
from harness.models import Source, TensorReader, open_source, read_inventory
from harness.reading import patterns, templates
from harness.recipe import Request, load_recipe, plan
from harness.serve import find_vllm
from tests.kernels import compile_kernel, interpret
from tests.tiers import pytest_addoption, pytest_collection_modifyitems, pytest_configure, slow

__all__ = [
    "compile_kernel",
    "interpret",
    "pytest_addoption",
    "pytest_collection_modifyitems",
    "pytest_configure",
]

torch.set_num_threads(1)

VOCABULARY = 272
NUM_EXPERTS = 8
_SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"]
_SPECIALS += ["<|image_pad|>", "<|video_pad|>"]
_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, then the specials from id 256 on."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(_SPECIALS)
    fast: Callable[..., PreTrainedTokenizerFast] = PreTrainedTokenizerFast
    return fast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",  # noqa: S106  # a token of text
        pad_token="<|endoftext|>",  # noqa: S106  # a token of text
        chat_template=_TEMPLATE,
    )


def _build(
    model_class: Callable[[Any], PreTrainedModel], config: PreTrainedConfig
) -> PreTrainedModel:
    return model_class(config)


def _randomize(model: PreTrainedModel) -> PreTrainedModel:
    """Give the matrices weights that spread activations, and the norms some life."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            spread = 0.08 if parameter.ndim > 1 else 0.05
            base = torch.zeros(()) if parameter.ndim > 1 else parameter.float()
            parameter.copy_(base + spread * noise)
    return model


def _text_options() -> dict[str, Any]:
    return {
        "hidden_size": 64,
        "intermediate_size": 48,
        "moe_intermediate_size": 32,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "num_hidden_layers": 2,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 512,
        "eos_token_id": 258,
        "pad_token_id": 256,
        "bos_token_id": None,
        "tie_word_embeddings": False,
    }


def _make_qwen3_5_moe() -> PreTrainedModel:
    text = _text_options() | {
        "num_experts": NUM_EXPERTS,
        "num_experts_per_tok": 2,
        "shared_expert_intermediate_size": 32,
        "num_hidden_layers": 4,
        "full_attention_interval": 4,
        "linear_key_head_dim": 64,
        "linear_value_head_dim": 64,
        "linear_num_key_heads": 1,
        "linear_num_value_heads": 2,
        "dtype": "bfloat16",
    }
    vision = {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": 64,
        "num_position_embeddings": 16,
        "patch_size": 4,
    }
    config = Qwen3_5MoeConfig(
        text_config=text,
        vision_config=vision,
        vision_start_token_id=259,
        vision_end_token_id=260,
        image_token_id=261,
        video_token_id=262,
        tie_word_embeddings=False,
    )
    return _build(Qwen3_5MoeForConditionalGeneration, config)


def _make_qwen3_moe() -> PreTrainedModel:
    options = _text_options() | {"num_experts": NUM_EXPERTS, "num_experts_per_tok": 2}
    return _build(Qwen3MoeForCausalLM, Qwen3MoeConfig(**options))


def _make_mixtral() -> PreTrainedModel:
    options = _text_options() | {"num_local_experts": NUM_EXPERTS, "num_experts_per_tok": 2}
    return _build(MixtralForCausalLM, MixtralConfig(**options, sliding_window=None))


def _make_qwen3() -> PreTrainedModel:
    return _build(Qwen3ForCausalLM, Qwen3Config(**_text_options()))


def _make_qwen3_tied() -> PreTrainedModel:
    options = _text_options() | {"tie_word_embeddings": True}
    return _build(Qwen3ForCausalLM, Qwen3Config(**options))


def _mtp_tensors() -> dict[str, torch.Tensor]:
    """A multi-token prediction head as the Hub stores it, cut down; nothing runs it."""
    generator = torch.Generator().manual_seed(1)
    shapes = {
        "mtp.fc.weight": (64, 128),
        "mtp.norm.weight": (64,),
        "mtp.layers.0.self_attn.q_proj.weight": (256, 64),
        "mtp.layers.0.mlp.gate.weight": (NUM_EXPERTS, 64),
        "mtp.layers.0.mlp.experts.gate_up_proj": (NUM_EXPERTS, 64, 64),
        "mtp.layers.0.mlp.experts.down_proj": (NUM_EXPERTS, 64, 32),
    }
    return {
        name: torch.randn(shape, generator=generator).to(torch.bfloat16)
        for name, shape in shapes.items()
    }


def _write(
    make: Callable[[], PreTrainedModel], folder: Path, *, shard_size: str = "1GB"
) -> PreTrainedModel:
    torch.manual_seed(0)
    model = _randomize(make())
    torch.nn.Module.to(model, torch.bfloat16)
    model.save_pretrained(folder, max_shard_size=shard_size)
    _tokenizer().save_pretrained(folder)
    return model


def _write_fused(folder: Path, *, num_shards: int) -> Path:
    """Write Qwen3.5-MoE as the Hub has it: experts fused, MTP tensors beside the model's."""
    model = _write(_make_qwen3_5_moe, folder)
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    tensors = dict(model.state_dict()) | _mtp_tensors()
    if num_shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    names = list(tensors)
    weight_map: dict[str, str] = {}
    for shard in range(num_shards):
        file_name = f"model-{shard + 1:05}-of-{num_shards:05}.safetensors"
        part = {name: tensors[name] for name in names[shard::num_shards]}
        save_file(part, folder / file_name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file_name)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No network, and no traces in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")  # for processes that tests start
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Let processes that tests start be interrupted: CI may start the tests with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _logging_as_at_the_start() -> None:
    """A command or its fixture may leave a handler that writes to a stream which is closed now."""
    logger = logging.getLogger("harness")
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def tiny_qwen3_5_moe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VLM layout, fused 3-D experts, MTP tensors, one file: as on the Hub."""
    return _write_fused(tmp_path_factory.mktemp("qwen3_5_moe"), num_shards=1)


@pytest.fixture(scope="session")
def tiny_qwen3_5_moe_sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same tensors in three shards with an index."""
    return _write_fused(tmp_path_factory.mktemp("qwen3_5_moe_sharded"), num_shards=3)


def _tiny(make: Callable[[], PreTrainedModel], *, shard_size: str = "1GB") -> Any:  # noqa: ANN401 - pytest's
    """Return a fixture: the folder of a model as save_pretrained writes it."""

    @pytest.fixture(scope="session")
    def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
        made = tmp_path_factory.mktemp(make.__name__.removeprefix("_make_"))
        _write(make, made, shard_size=shard_size)
        return made

    return folder


tiny_qwen3_5_moe_per_expert = _tiny(_make_qwen3_5_moe)  # one tensor an expert, no MTP
tiny_qwen3_moe = _tiny(_make_qwen3_moe)
tiny_mixtral = _tiny(_make_mixtral)
tiny_mixtral_sharded = _tiny(_make_mixtral, shard_size="100KB")
tiny_qwen3 = _tiny(_make_qwen3)
tiny_qwen3_tied = _tiny(_make_qwen3_tied)  # the output layer shares the embedding's weight


@pytest.fixture(scope="session")
def tiny_models(
    tiny_qwen3_5_moe: Path, tiny_qwen3_moe: Path, tiny_mixtral: Path, tiny_qwen3: Path
) -> dict[str, Path]:
    """One folder a family, by the name of its file in harness.models."""
    return {
        "qwen3_5_moe": tiny_qwen3_5_moe,
        "qwen3_moe": tiny_qwen3_moe,
        "mixtral": tiny_mixtral,
        "qwen3": tiny_qwen3,
    }


@pytest.fixture(scope="session")
def calibration_jsonl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve short texts of three lengths, enough to reach every expert of the tiny models."""
    path = tmp_path_factory.mktemp("calibration") / "calibration.jsonl"
    letters = "the quick brown fox jumps over the lazy dog; 0123456789 = sphinx of black quartz!"
    texts = [letters[i:] + letters[:i] for i in range(0, 72, 6)]
    lines = [json.dumps({"text": text[: 40 + 20 * (i % 3)]}) for i, text in enumerate(texts)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


class Planned(NamedTuple):
    """What quantize and export take."""

    source: Source
    plan: QuantPlan
    stats: CalibrationStats


def stats_of(source: Source, inventory: Inventory) -> CalibrationStats:
    """True ranges of the weights, and an own invented one for every input."""
    with TensorReader(source) as reader:
        weight_amax = {
            linear.name: reader.matrix(linear.source).abs().max().item()
            for linear in inventory.linears
        }
    names = sorted({linear.input_quantizer for linear in inventory.linears})
    input_amax = {name: 1.0 + index / 8 for index, name in enumerate(names)}
    for index, attention in enumerate(inventory.attentions):
        input_amax |= {attention.k_quantizer: 3.0 + index, attention.v_quantizer: 5.0 + index}
    return CalibrationStats(
        weight_amax=weight_amax, input_amax=input_amax, coverage=(), num_samples=8, num_tokens=512
    )


@pytest.fixture(scope="session")
def planned() -> Callable[..., Planned]:
    def make(model: Path, qformat: str = "nvfp4", kv_cache: str = "none") -> Planned:
        request = Request(model=str(model), qformat=qformat, kv_cache=kv_cache, device="cpu")
        source = open_source(str(model))
        inventory = read_inventory(source)
        chosen = plan(load_recipe(request), inventory)
        return Planned(source, chosen, stats_of(source, inventory))

    return make


@pytest.fixture(scope="session")
@slow("a real vLLM takes half a minute to start, and serves on all cores")
def vllm_python() -> Path:
    """The Python of an environment with vLLM in it."""
    path = find_vllm()
    if path is None:
        pytest.fail("no vLLM was found: run scripts/setup-vllm cpu, or set HARNESS_VLLM")
    return path


@pytest.fixture
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give what never ends one second of a processor, where it would have two or three."""
    for module in (patterns, templates):
        monkeypatch.setattr(module._child(), "_cpu_s", 1)  # noqa: SLF001  # made with the limit


@pytest.fixture(scope="session")
def lm_eval_index() -> None:
    """Build lm-eval's own index of tasks, which takes seconds, once for all who look into it."""
    from harness.score import sources  # noqa: PLC0415 - imports lm-eval

    sources._lm_eval_tasks()  # noqa: SLF001  # what it keeps is what is wanted
