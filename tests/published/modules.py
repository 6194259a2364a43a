"""The modules of a model, layer by layer, under the names of its family's checkpoints."""

from collections.abc import Iterator

from tests.published.families import (
    LETTERS,
    VOCABULARY,
    WIDE,
    WIDTH,
    WORDS,
    Config,
    Names,
    Part,
    decoder_of,
    has_experts,
    kind_of,
    mixer_of,
    num_experts,
    num_layers,
)


def parts_of(config: Config, names: Names) -> list[Part]:
    """Return every module of a model."""
    inner = decoder_of(config)
    parts = [Part(names.embedding, (VOCABULARY, WIDTH), is_linear=False)]
    parts.append(Part(names.norm, (WIDTH,), is_linear=False))
    if not (config.get("tie_word_embeddings") or inner.get("tie_word_embeddings")):
        parts.append(Part(names.head, (VOCABULARY, WIDTH)))
    for index in range(num_layers(inner)):
        parts += _layer(inner, names, index, f"{names.decoder}layers.{index}")
    return [*parts, *_draft(inner, names), *_vision(config, names.tower)]


def _layer(inner: Config, names: Names, index: int, path: str) -> Iterator[Part]:
    kind = kind_of(inner)
    if kind in {"deepseek_v4", "deepseek_ref"}:
        yield from _deepseek_v4(inner, index, path)
        return
    mixer = mixer_of(inner, index)
    if kind == "nemotron_h":
        yield _norm(f"{path}.norm")
        yield from _nemotron(inner, names, mixer, f"{path}.mixer")
        return
    yield from (_norm(f"{path}.{n}") for n in ("input_layernorm", "post_attention_layernorm"))
    yield from _attention(inner, mixer, path)
    yield from _feed_forward(inner, names, index, path)


def _feed_forward(inner: Config, names: Names, index: int, path: str) -> Iterator[Part]:
    if kind_of(inner) == "gemma4_text":
        yield from _mlp(f"{path}.mlp", WORDS)
    if has_experts(inner, index):
        block = f"{path}.{names.experts}" if names.experts else path
        yield from _experts(inner, names, block)
    elif kind_of(inner) != "gemma4_text":
        block = "feed_forward" if kind_of(inner) == "llama4_text" else "mlp"
        is_fused = kind_of(inner) in _FUSED_IN_FILES
        yield from _mlp(f"{path}.{block}", ("", "gate_up_proj", WORDS[2]) if is_fused else WORDS)


def _norm(name: str, width: int = WIDTH) -> Part:
    return Part(name, (width,), is_linear=False)


_FUSED_IN_FILES = {"chatglm", "phi3", "phi4mm", "phi4_multimodal"}


def _mlp(path: str, projections: tuple[str, str, str]) -> Iterator[Part]:
    gate, up, down = projections
    yield from (Part(f"{path}.{name}", (WIDE, WIDTH)) for name in (gate, up) if name)
    yield Part(f"{path}.{down}", (WIDTH, WIDE))


def _attention(inner: Config, mixer: str, path: str) -> Iterator[Part]:
    if mixer == "linear_attention":
        yield from _linear_attention(inner, f"{path}.linear_attn")
    elif mixer == "kda":
        yield from _delta_attention(f"{path}.self_attn")
    elif inner.get("kv_lora_rank"):
        yield from _latent_attention(inner, f"{path}.self_attn")
    else:
        yield from _full_attention(inner, mixer, f"{path}.self_attn")


_WITH_NORMS = {"qwen3", "qwen3_moe", "qwen3_next", "qwen3_5_text", "qwen3_5_moe_text", "minimax_m2"}
_WITH_NORMS |= {"minimax_m3_vl", "gemma3_text", "gemma4_text", "qwen3_vl_text", "qwen3_vl_moe_text"}


def _full_attention(inner: Config, mixer: str, path: str) -> Iterator[Part]:
    if kind_of(inner) in _FUSED_IN_FILES:
        yield Part(f"{path}.qkv_proj", (2 * WIDE, WIDTH))
        yield Part(f"{path}.o_proj", (WIDTH, WIDE))
        return
    shares = inner.get("attention_k_eq_v") and mixer == "full_attention"
    names = ("k_proj",) if shares else ("k_proj", "v_proj")
    yield Part(f"{path}.q_proj", (WIDE, WIDTH))
    yield from (Part(f"{path}.{name}", (WIDTH, WIDTH)) for name in names)
    yield Part(f"{path}.o_proj", (WIDTH, WIDE))
    if kind_of(inner) in _WITH_NORMS:
        yield from (_norm(f"{path}.{name}", 32) for name in ("q_norm", "k_norm"))
    if kind_of(inner) == "gpt_oss":
        yield Part(path, (4,), is_linear=False, leaf="sinks")
    if inner.get("add_swa_attention_sink_bias") and mixer == "sliding_attention":
        yield Part(path, (4,), is_linear=False, leaf="attention_sink_bias")


def _linear_attention(inner: Config, path: str) -> Iterator[Part]:
    if kind_of(inner) == "qwen3_next":
        yield Part(f"{path}.in_proj_qkvz", (2 * WIDE, WIDTH))
        yield Part(f"{path}.in_proj_ba", (8, WIDTH))
    else:
        yield Part(f"{path}.in_proj_qkv", (2 * WIDE, WIDTH))
        yield Part(f"{path}.in_proj_z", (WIDE, WIDTH))
        yield from (Part(f"{path}.in_proj_{x}", (4, WIDTH)) for x in "ab")
    yield Part(f"{path}.out_proj", (WIDTH, WIDE))
    yield Part(f"{path}.conv1d", (2 * WIDE, 1, 4), is_linear=False)
    yield _norm(f"{path}.norm", 32)
    yield from (Part(path, (4,), is_linear=False, leaf=leaf) for leaf in ("A_log", "dt_bias"))


def _delta_attention(path: str) -> Iterator[Part]:
    """Kimi's linear attention."""
    yield from (Part(f"{path}.{x}_proj", (WIDTH, WIDTH)) for x in "qkvo")
    yield from (Part(f"{path}.{x}_a_proj", (32, WIDTH)) for x in "fg")
    yield from (Part(f"{path}.{x}_b_proj", (WIDTH, 32)) for x in "fg")
    yield Part(f"{path}.b_proj", (4, WIDTH))
    yield from (Part(f"{path}.{x}_conv1d", (WIDTH, 1, 4), is_linear=False) for x in "qkv")
    yield _norm(f"{path}.o_norm", 32)
    yield from (Part(path, (4,), is_linear=False, leaf=leaf) for leaf in ("A_log", "dt_bias"))


def _latent_attention(inner: Config, path: str) -> Iterator[Part]:
    if inner.get("q_lora_rank"):
        yield Part(f"{path}.q_a_proj", (WIDTH, WIDTH))
        yield _norm(f"{path}.q_a_layernorm")
        yield Part(f"{path}.q_b_proj", (WIDE, WIDTH))
    else:
        yield Part(f"{path}.q_proj", (WIDE, WIDTH))
    yield Part(f"{path}.kv_a_proj_with_mqa", (WIDTH + 64, WIDTH))
    yield _norm(f"{path}.kv_a_layernorm")
    yield Part(f"{path}.kv_b_proj", (WIDE, WIDTH))
    yield Part(f"{path}.o_proj", (WIDTH, WIDE))
    if inner.get("index_n_heads"):
        yield Part(f"{path}.indexer.wq_b", (WIDE, WIDTH))
        yield Part(f"{path}.indexer.wk", (WIDTH, WIDTH))
        yield Part(f"{path}.indexer.weights_proj", (4, WIDTH), is_linear=False)
        yield _norm(f"{path}.indexer.k_norm")


def _experts(inner: Config, names: Names, path: str) -> Iterator[Part]:
    kind = kind_of(inner)
    number = num_experts(inner)
    router = {"gpt_oss": "router", "llama4_text": "router", "gemma4_text": "router.proj"}
    yield Part(f"{path}.{router.get(kind, 'gate')}", (number, WIDTH), is_linear=False)
    if kind == "gemma4_text":
        yield Part(f"{path}.router", (WIDTH,), is_linear=False, leaf="scale")
        yield Part(f"{path}.router", (number,), is_linear=False, leaf="per_expert_scale")
    if inner.get("topk_method") == "noaux_tc" or inner.get("scoring_func") == "sigmoid":
        where = path if names.projections == LETTERS else f"{path}.gate"
        yield Part(where, (number,), is_linear=False, leaf="e_score_correction_bias")
    for index in range(number):
        yield from _mlp(f"{path}.experts.{index}", names.projections)
    if inner.get("n_shared_experts") or inner.get("num_shared_experts"):
        yield from _mlp(f"{path}.shared_experts", WORDS)
    elif kind == "llama4_text":
        yield from _mlp(f"{path}.shared_expert", WORDS)
    elif inner.get("shared_expert_intermediate_size"):
        yield from _mlp(f"{path}.shared_expert", WORDS)
        yield Part(f"{path}.shared_expert_gate", (1, WIDTH), is_linear=False)


def _nemotron(inner: Config, names: Names, mixer: str, path: str) -> Iterator[Part]:
    """Mamba, attention or experts without a gate projection, one of them a layer."""
    up_down = ("", "up_proj", "down_proj")
    if mixer == "mamba":
        yield Part(f"{path}.in_proj", (2 * WIDE, WIDTH))
        yield Part(f"{path}.conv1d", (WIDE, 1, 4), is_linear=False)
        yield Part(f"{path}.out_proj", (WIDTH, WIDE))
        yield _norm(f"{path}.norm", WIDE)
        yield from (Part(path, (4,), is_linear=False, leaf=x) for x in ("A_log", "D", "dt_bias"))
    elif mixer == "attention":
        yield from _full_attention(inner, mixer, path)
    elif mixer == "mlp":
        yield from _mlp(path, up_down)
    else:
        if inner.get("moe_latent_size"):
            yield from (Part(f"{path}.fc{x}_latent_proj", (WIDTH, WIDTH)) for x in "12")
        plain = {key: value for key, value in inner.items() if key != "n_shared_experts"}
        yield from _experts(plain, names._replace(projections=up_down), path)
        if inner.get("n_shared_experts"):
            yield from _mlp(f"{path}.shared_experts", up_down)


def _deepseek_v4(inner: Config, index: int, path: str) -> Iterator[Part]:
    yield from (_norm(f"{path}.{name}") for name in ("attn_norm", "ffn_norm"))
    for leaf in ("hc_attn_fn", "hc_ffn_fn"):
        yield Part(path, (24, 4 * WIDTH), is_linear=False, leaf=leaf)
    attention = f"{path}.attn"
    yield from (Part(f"{attention}.{x}", (WIDTH, WIDTH)) for x in ("wq_a", "wkv"))
    yield Part(f"{attention}.wq_b", (WIDE, WIDTH))
    yield Part(f"{attention}.wo_a", (WIDE, WIDTH))
    yield Part(f"{attention}.wo_b", (WIDTH, WIDE))
    yield from (_norm(f"{attention}.{name}") for name in ("q_norm", "kv_norm"))
    yield Part(attention, (4,), is_linear=False, leaf="attn_sink")
    ratios = inner.get("compress_ratios") or ()
    ratio = ratios[index] if index < len(ratios) else 0
    if ratio:
        yield from _compressor(f"{attention}.compressor")
    if ratio == 4:
        yield from _compressor(f"{attention}.indexer.compressor")
        yield Part(f"{attention}.indexer.wq_b", (WIDE, WIDTH))
        yield Part(f"{attention}.indexer.weights_proj", (4, WIDTH), is_linear=False)
    yield Part(f"{path}.ffn.gate", (num_experts(inner), WIDTH), is_linear=False)
    for expert in range(num_experts(inner)):
        yield from _mlp(f"{path}.ffn.experts.{expert}", LETTERS)
    yield from _mlp(f"{path}.ffn.shared_experts", LETTERS)


def _compressor(path: str) -> Iterator[Part]:
    yield Part(path, (4, WIDTH), is_linear=False, leaf="ape")
    yield from (Part(f"{path}.{x}", (WIDTH, WIDTH), is_linear=False) for x in ("wkv", "wgate"))
    yield _norm(f"{path}.norm")


def _draft(inner: Config, names: Names) -> Iterator[Part]:
    """The head that guesses further tokens, where the family keeps one in its checkpoints."""
    kind = kind_of(inner)
    if kind in {"deepseek_v4", "deepseek_ref"} and inner.get("num_nextn_predict_layers"):
        yield from (Part(f"mtp.0.{x}_proj", (WIDTH, WIDTH)) for x in "eh")
        yield from (_norm(f"mtp.0.{x}") for x in ("enorm", "hnorm", "norm"))
        yield from _deepseek_v4(inner, len(inner.get("compress_ratios") or ()), "mtp.0")
    elif kind == "nemotron_h" and inner.get("mtp_layers_block_type"):
        yield Part("mtp.layers.0.eh_proj", (WIDTH, WIDE))
        yield from (_norm(f"mtp.layers.0.{x}") for x in ("enorm", "hnorm"))
        for index, mixer in enumerate(inner["mtp_layers_block_type"]):
            yield _norm(f"mtp.layers.{index}.norm")
            yield from _nemotron(inner, names, mixer, f"mtp.layers.{index}.mixer")
    elif inner.get("mtp_num_hidden_layers"):
        yield Part("mtp.fc", (WIDTH, WIDE))
        yield _norm("mtp.norm")
        yield from _attention(inner, "full_attention", "mtp.layers.0")
        yield from _feed_forward(inner, names, 10**6, "mtp.layers.0")
    elif inner.get("num_nextn_predict_layers") and kind.startswith(_LAST_LAYER):
        yield from _last_layer(inner, names)


_LAST_LAYER = ("deepseek", "glm", "kimi")


def _last_layer(inner: Config, names: Names) -> Iterator[Part]:
    """DeepSeek's: one more layer of the decoder, with what joins it to the others."""
    path = f"{names.decoder}layers.{num_layers(inner)}"
    yield Part(f"{path}.eh_proj", (WIDTH, WIDE), is_linear=False)
    yield from (_norm(f"{path}.{x}") for x in ("enorm", "hnorm", "shared_head.norm"))
    yield Part(f"{path}.embed_tokens", (VOCABULARY, WIDTH), is_linear=False)
    yield Part(f"{path}.shared_head.head", (VOCABULARY, WIDTH), is_linear=False)
    yield from (_norm(f"{path}.{n}") for n in ("input_layernorm", "post_attention_layernorm"))
    yield from _attention(inner, "attention", path)
    yield from _experts(inner, names, f"{path}.{names.experts}")


_TOWERS = {
    "gemma4": (
        "model.vision_tower.encoder.layers.0.self_attn.q_proj.linear",
        "model.embed_vision.embedding_projection",
    ),
    "kimi_k25": ("vision_tower.encoder.blocks.0.wqkv", "mm_projector.proj.0"),
    "kimi_k3": ("vision_tower.encoder.blocks.0.wqkv", "mm_projector.proj.0"),
    "llama4": ("vision_model.model.layers.0.self_attn.q_proj", "multi_modal_projector.linear_1"),
    "minimax_m3_vl": (
        "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj",
        "multi_modal_projector.linear_1",
        "patch_merge_mlp.linear_1",
    ),
}


def _vision(config: Config, tower: str) -> Iterator[Part]:
    if not config.get("vision_config"):
        return
    usual = (f"{tower}.blocks.0.attn.qkv", f"{tower}.merger.linear_fc1")
    for name in _TOWERS.get(kind_of(config), usual):
        yield Part(name, (WIDTH, WIDTH), is_linear=False)
