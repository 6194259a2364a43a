"""Does harness take layers for what vLLM takes them for? Prints how many answers are the same.

    .venv/bin/python scripts/same_as_vllm.py [PYTHON [SOURCES]]

PYTHON is that of a vLLM's environment (.venv-vllm/bin/python), SOURCES a folder with the package
of another version that is to be asked instead. Lists and names are drawn with a fixed seed.
"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from harness.engines import (
    USUAL,
    Engine,
    EngineLayer,
    engine_layers,
    find_engine,
    read_declarations,
)

_ANSWERS = Path(__file__).with_name("vllm_answers.py")
_NUM_LISTS = 60
"""For each architecture and layout."""
_PARTS = {
    "Qwen3_5MoeForConditionalGeneration": "model.language_model.layers",
    "Qwen3MoeForCausalLM": "model.layers",
    "MixtralForCausalLM": "model.layers",
    "DeepseekV3ForCausalLM": "model.layers",
    "NemotronHForCausalLM": "backbone.layers",
    "KimiK25ForConditionalGeneration": "language_model.model.layers",
}
_LEAVES = (
    *(f"self_attn.{p}_proj" for p in "qkvo"),
    *(f"self_attn.{p}" for p in ("q_a_proj", "kv_a_proj_with_mqa", "q_b_proj")),
    *(f"linear_attn.in_proj_{p}" for p in ("qkv", "z", "b", "a")),
    *(f"mlp.{p}_proj" for p in ("gate", "up", "down")),
    *(f"mlp.shared_expert.{p}_proj" for p in ("gate", "up", "down")),
    *(f"mlp.experts.{n}.{p}_proj" for n in (0, 1) for p in ("gate", "up", "down")),
    "mixer.in_proj",
    "mlp.gate",
)
_NVFP4 = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}
_FP8 = {"num_bits": 8, "type": "float", "strategy": "tensor"}
_Json = dict[str, Any]


class Case(NamedTuple):
    """A declaration and the layers that it is asked about."""

    section: _Json
    config: _Json
    layers: list[EngineLayer]


def main() -> None:
    """Ask both and compare."""
    python = sys.argv[1] if len(sys.argv) > 1 else ".venv-vllm/bin/python"
    version, num_lists, different, _ = compare(python, *sys.argv[2:3])
    wrong = [line for line in different if line]
    same, total = len(different) - len(wrong), len(different)
    print(f"{version}: {same} of {total} answers are the same, over {num_lists} lists")
    print("\n".join(wrong[:20]))
    sys.exit(bool(wrong))


def compare(
    python: str, sources: str = "", *, num_lists: int = _NUM_LISTS
) -> tuple[str, int, list[str], list[str | None]]:
    """Ask both.

    Returns:
        The version, the number of declarations, how each answer differs ('' if it does not), and
        vLLM's answers.
    """
    environment = {**os.environ, "PYTHONPATH": sources}
    asked = ask(python, [], environment)
    engine = find_engine(f"vllm=={asked['version']}")
    cases = [case for architecture in _PARTS for case in _cases(architecture, engine, num_lists)]
    found = ask(python, [_as_json(case, engine) for case in cases], environment)
    different: list[str] = []
    for case, answers in zip(cases, found["answers"], strict=True):
        (declared,) = read_declarations({"quantization_config": case.section, **case.config}, {})
        rules = engine.rules(declared, case.config)
        for layer, expected in zip(case.layers, answers, strict=True):
            answer = rules.ask(layer)
            ours = "split" if answer.is_split else answer.algorithm
            line = f"{layer.name}: vLLM {expected}, harness {ours}, {json.dumps(case.section)}"
            different.append("" if ours == expected else line)
    theirs = [one for answers in found["answers"] for one in answers]
    return engine.name, len(cases), different, theirs


def ask(python: str, cases: list[_Json], environment: dict[str, str]) -> _Json:
    """Return vLLM's answers."""
    done = subprocess.run(
        [python, str(_ANSWERS)],
        input=json.dumps(cases),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    found: _Json = json.loads(done.stdout.splitlines()[-1])
    return found


def _cases(architecture: str, engine: Engine, num_lists: int) -> Iterator[Case]:
    config = {"architectures": [architecture]}
    family = engine.family_of(config) or USUAL
    modules = [f"{_PARTS[architecture]}.{n}.{leaf}" for n in (0, 1, 10) for leaf in _LEAVES]
    modules += ["lm_head", "model.visual.blocks.0.attn.qkv"]
    layers = list(engine_layers(modules, family))
    drawn = random.Random(architecture)  # noqa: S311 -- a repeatable choice
    for number in range(num_lists):
        chosen = drawn.sample(modules, drawn.randrange(6))
        modelopt = [_entry(name, drawn) for name in chosen]
        named = {name: {"quant_algo": drawn.choice(("FP8", "NVFP4"))} for name in _named(chosen)}
        for section in (
            {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": modelopt},
            {
                "quant_method": "modelopt",
                "quant_algo": "MIXED_PRECISION",
                "quantized_layers": named or {"lm_head": {"quant_algo": "FP8"}},
                "ignore": modelopt[: number % 3],
            },
            _groups(modules, drawn, [_expression(name, drawn) for name in chosen]),
            {
                "quant_method": "fp8",
                "activation_scheme": "dynamic",
                "weight_block_size": [128, 128],
                "modules_to_not_convert": chosen,
            },
        ):
            fp8 = section["quant_method"] == "fp8"
            yield Case(section, config, [one for one in layers if not fp8 or one.last != "lm_head"])


def _named(chosen: list[str]) -> Iterator[str]:
    """Yield names as `quantized_layers` has them: of experts one by one, or of a layer's whole."""
    for number, name in enumerate(chosen):
        path, dot, _ = name.partition(".experts")
        yield path + dot if dot and number % 2 else name


def _entry(name: str, drawn: random.Random) -> str:
    """Return an entry of modelopt's list that is about a module, or means to be."""
    parent, _, last = name.rpartition(".")
    forms = (name, f"{name}*", f"{parent}*", f"{parent}.*", f"*{last}", f"*.{last}*", parent, last)
    fused = {"q_proj": "qkv_proj", "gate_proj": "gate_up_proj", "in_proj_b": "in_proj_ba"}
    return drawn.choice((*forms, f"{parent}.{fused.get(last, last)}", name[:-1]))


def _expression(name: str, drawn: random.Random) -> str:
    parent, _, last = name.rpartition(".")
    forms = (f"re:.*{last}$", f"re:.*{last}.*", f"re:{parent}.*", f"re:^{name}$", "re:.*qkv_proj")
    return drawn.choice((name, *forms))


def _groups(modules: list[str], drawn: random.Random, ignore: list[str]) -> _Json:
    targets = [_expression(name, drawn) for name in drawn.sample(modules, drawn.randrange(1, 4))]
    groups = {
        "group_0": {"weights": _NVFP4, "input_activations": _NVFP4, "targets": ["Linear"]},
        "group_1": {"weights": _FP8, "input_activations": _FP8, "targets": targets},
    }
    if drawn.random() < 0.3:  # noqa: PLR2004 -- some
        del groups["group_1"]
    return {
        "quant_method": "compressed-tensors",
        "format": "nvfp4-pack-quantized",
        "config_groups": groups,
        "ignore": ignore,
    }


def _as_json(case: Case, engine: Engine) -> _Json:
    family = engine.family_of(case.config) or USUAL
    experts = engine.dialect.experts or family.experts or ("gate_proj", "up_proj", "down_proj")
    layers = [
        {"name": layer.name, "experts": list(experts) if layer.is_routed else []}
        for layer in case.layers
    ]
    mapper = None if family.mapper is None else asdict(family.mapper)
    fused = {whole: list(parts) for whole, parts in family.fused.items()}
    return {"section": case.section, "mapper": mapper, "fused": fused, "layers": layers}


if __name__ == "__main__":
    main()
