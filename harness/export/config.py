"""What the checkpoint says of itself: config.json and hf_quant_config.json.

Both say the same in different words, for some engines read the one and some the other. The
source's config.json is kept, with `quantization_config` added.

Source: nvidia-modelopt 0.47.0, torch/export/convert_hf_config.py and quant_utils.py.
"""

from collections.abc import Mapping

from harness import __version__
from harness.artifacts import KvFormat, QuantPlan
from harness.export.ignore import ignored_modules
from harness.formats import get_scheme

PRODUCER: Mapping[str, str] = {"name": "harness", "version": __version__}


def hf_quant_config(plan: QuantPlan) -> dict[str, object]:
    """Return the contents of hf_quant_config.json."""
    scheme = get_scheme(plan.scheme)
    quantization: dict[str, object] = {
        "quant_algo": scheme.name,
        "kv_cache_quant_algo": None if plan.kv_cache == KvFormat.NONE else "FP8",
    }
    if scheme.group_size is not None:
        quantization["group_size"] = scheme.group_size
    quantization["exclude_modules"] = list(ignored_modules(plan))
    return {"producer": dict(PRODUCER), "quantization": quantization}


def config_with_quantization(config: Mapping[str, object], plan: QuantPlan) -> dict[str, object]:
    """Return the contents of config.json."""
    scheme = get_scheme(plan.scheme)
    declared: dict[str, object] = {
        "config_groups": {"group_0": scheme.config_group()},
        "ignore": list(ignored_modules(plan)),
        "quant_algo": scheme.name,
    }
    if plan.kv_cache != KvFormat.NONE:
        declared["kv_cache_scheme"] = {"dynamic": False, "num_bits": 8, "type": "float"}
    declared |= {"producer": dict(PRODUCER), "quant_method": "modelopt"}
    return {**config, "quantization_config": declared}
