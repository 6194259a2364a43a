"""What the checkpoint says of itself: config.json and hf_quant_config.json.

Both say the same in different words, for some engines read the one and some the other. The
source's config.json is kept, with `quantization_config` added.

Source: nvidia-modelopt 0.47.0, torch/export/convert_hf_config.py and quant_utils.py.
"""

from collections.abc import Mapping

from harness import __version__
from harness.artifacts import MIXED, KvFormat, QuantPlan, Wording
from harness.export.ignore import ignored_modules
from harness.export.mixed import layer_schemes
from harness.formats import get_scheme

PRODUCER: Mapping[str, str] = {"name": "harness", "version": __version__}


def hf_quant_config(plan: QuantPlan) -> dict[str, object]:
    """Return the contents of hf_quant_config.json."""
    quantization: dict[str, object] = {
        "quant_algo": plan.scheme,
        "kv_cache_quant_algo": KvFormat(plan.kv_cache).algorithm,
    }
    if plan.scheme == MIXED:
        quantization["quantized_layers"] = _quantized_layers(plan)
    elif (size := get_scheme(plan.scheme).group_size) is not None:
        quantization["group_size"] = size
    quantization["exclude_modules"] = list(ignored_modules(plan))
    return {"producer": dict(PRODUCER), "quantization": quantization}


def config_with_quantization(config: Mapping[str, object], plan: QuantPlan) -> dict[str, object]:
    """Return the contents of config.json."""
    declared: dict[str, object]
    if plan.scheme == MIXED:
        groups, layers = _groups_of_layers(plan), _quantized_layers(plan)
        declared = {"config_groups": groups, "quantized_layers": layers}
    else:
        scheme = get_scheme(plan.scheme)
        declared = {"config_groups": {"group_0": scheme.config_group()}} if scheme.grouped else {}
    declared |= {"ignore": list(ignored_modules(plan)), "quant_algo": plan.scheme}
    if plan.declares_kv:
        declared["kv_cache_scheme"] = _kv_scheme(KvFormat(plan.kv_cache))
    declared |= {"producer": dict(PRODUCER), "quant_method": "modelopt"}
    return {**config, "quantization_config": declared}


def _kv_scheme(kv_cache: KvFormat) -> object:
    """Return what engines read: of 8 bits a mapping, else a word."""
    is_fp8 = kv_cache.algorithm == "FP8"
    return {"dynamic": False, "num_bits": 8, "type": "float"} if is_fp8 else kv_cache.algorithm


def _quantized_layers(plan: QuantPlan) -> dict[str, object]:
    return {name: get_scheme(scheme).layer_entry() for name, scheme in layer_schemes(plan).items()}


def _groups_of_layers(plan: QuantPlan) -> dict[str, object]:
    """Return a group for each scheme, in the order in which the model has them."""
    targets: dict[str, list[str]] = {}
    for name, scheme in layer_schemes(plan).items():
        targets.setdefault(scheme, []).append(name)
    with_inputs = True if plan.wording is Wording.EARLIER else None
    return {
        f"group_{index}": get_scheme(scheme).config_group(sorted(names), with_inputs=with_inputs)
        for index, (scheme, names) in enumerate(targets.items())
    }
