"""Recipes of Model-Optimizer, taken as they are: its YAML to a recipe of ours, or a refusal.

Its list of quantizers is in order, too, and the last entry that matches wins; an entry gives a
quantizer all of its attributes, or turns it off. So each entry is a rule. What has no counterpart
here is refused, with the first key that has none: algorithms that harness does not have, other
numbers, quantizers of outputs and of products within attention.

`layerwise` is passed over: harness runs a model layer by layer by itself, with the same bytes.

Source: nvidia-modelopt 0.47.0, recipe/config.py, torch/quantization/config.py and conversion.py.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import ValidationError

from harness.artifacts import (
    PLAIN,
    Algorithm,
    CalibrationSpec,
    InputRanges,
    KvFormat,
    Matching,
    Rule,
    Scales,
)
from harness.errors import RecipeError
from harness.recipe.peer_files import resolved
from harness.recipe.peer_numbers import (
    Problem,
    block_scales_of,
    format_of,
    kv_format_of,
    plain,
    repr_of,
)
from harness.recipe.rules import OFF
from harness.recipe.schema import RecipeFile

_OURS = frozenset({"version", "rules"})
"""A mapping that has one of these is a recipe of harness."""
_ALL = "*"
_BMM = re.compile(r"[^.*]*_bmm_quantizer")
_FOREIGN_CLASSES = re.compile(r"(nn\.)?(BatchNorm\dd|LeakyReLU|Embedding|Conv\dd)")
"""Layers that harness never quantizes."""
_HARMLESS: Mapping[str, tuple[object, ...]] = {
    "layerwise": (),
    "distributed_sync": (),
    "skip_forward_without_activation_calib": (),
    "sync_expert_weight_amax": (False,),
    "moe_calib_experts_ratio": (None,),
    "shared_states": (None,),
}
"""Keys of an algorithm, and the values that change no number; none: any."""
_Steps = tuple[tuple[str, object], ...]
_SWEEP: _Steps = (("fp8_scale_sweep", True),)
_FOUR_AND_SIX: _Steps = (
    ("fp8_scale_sweep", False),
    ("start_multiplier", 1.0),
    ("step_size", 0.5),
    ("stop_multiplier", 1.5),
)
_ALGORITHMS: Mapping[tuple[object, _Steps], tuple[str, Scales]] = {
    ("mse", _SWEEP): ("static", Scales.MSE),
    ("mse", _FOUR_AND_SIX): ("four_over_six", Scales.FOUR_OVER_SIX),
    ("local_hessian", ()): ("static", Scales.LOCAL_HESSIAN),
    ("local_hessian", _SWEEP): ("static", Scales.LOCAL_HESSIAN),
    ("max", ()): ("static", Scales.MAX),
    (None, ()): ("static", Scales.MAX),
}
"""What a method with these settings does, and to which scales of blocks."""

_HEADROOM = "nvfp4_act_headroom"
_HEADROOM_SETTINGS: Mapping[str, float] = {
    "anchor_percentile": 1.0,
    "upper_percentile": 99.99,
    "rho": 16384.0,
}
"""Its defaults, which `harness.algorithms.headroom` has."""


def is_peer_recipe(documents: Sequence[object]) -> bool:
    """Return whether a file is one of Model-Optimizer's, of whatever kind."""
    head = documents[0] if documents else None
    if len(documents) > 1 or isinstance(head, list):
        return True
    return isinstance(head, dict) and bool(head) and _OURS.isdisjoint(head)


def convert(path: Path, documents: Sequence[object]) -> RecipeFile:
    """Return the recipe that a file of Model-Optimizer means.

    Raises:
        RecipeError: with the first key that is not supported, and what is.
    """
    whole = resolved(path, documents)
    try:
        return _converted(path, whole)
    except ValidationError as cause:
        first = cause.errors()[0]
        message = f"'{path}': {first['msg']}. Simplify the recipe."
        raise RecipeError(message) from cause
    except Problem as problem:
        message = f"'{path}', {problem.key}: {problem.what} is not supported. {problem.supported}"
        raise RecipeError(message) from problem


def _converted(path: Path, whole: object) -> RecipeFile:
    if not isinstance(whole, dict):
        raise Problem(
            key="the whole file",
            what="a snippet",
            supported="Give a recipe, with quantize.quant_cfg.",
        )
    section, inside = _section(whole)
    entries = section.get("quant_cfg")
    if not isinstance(entries, list) or not entries:
        what = repr_of(entries)
        raise Problem(
            key=f"{inside}quant_cfg",
            what=what,
            supported="It is a list of quantizers and their numbers.",
        )
    reader = _Entries(f"{inside}quant_cfg")
    rules = tuple(reader.rules(entries))
    algorithm = _algorithm(section.get("algorithm"), reader.block_scales, f"{inside}algorithm")
    metadata = whole.get("metadata")
    described = metadata.get("description") if isinstance(metadata, dict) else None
    return RecipeFile(
        version=1,
        name=re.sub(r"[^A-Za-z0-9._-]", "_", path.stem)[:64].lstrip("._-") or "recipe",
        description=" ".join(str(described or "A recipe of Model-Optimizer.").split()),
        rules=rules,
        exclude=(),
        kv_cache=reader.kv_cache,
        algorithm=algorithm,
        calibration=CalibrationSpec(
            data="auto", size=512, seq=512, seed=0, batch_tokens=8192, layerwise=True
        ),
        engine="auto",
        suite="auto",
        matching=Matching.PEER,
    )


def _section(whole: Mapping[str, object]) -> tuple[Mapping[str, object], str]:
    """Return the part about quantization, and how its keys are called."""
    if "metadata" not in whole and "quantize" not in whole:
        _refuse_others(whole, ("algorithm", "quant_cfg", "effective_bits"), "")
        return whole, ""
    metadata = whole.get("metadata")
    kind = metadata.get("recipe_type") if isinstance(metadata, dict) else None
    if kind != "ptq":
        raise Problem(key="metadata.recipe_type", what=f"'{kind}'", supported="Supported: 'ptq'.")
    _refuse_others(whole, ("metadata", "quantize"), "")
    section = whole.get("quantize")
    if not isinstance(section, dict):
        raise Problem(
            key="quantize", what=repr_of(section), supported="It holds algorithm and quant_cfg."
        )
    _refuse_others(section, ("algorithm", "quant_cfg", "effective_bits"), "quantize.")
    return section, "quantize."


def _refuse_others(mapping: Mapping[str, object], known: tuple[str, ...], inside: str) -> None:
    for key in mapping:
        if key not in known:
            raise Problem(
                key=f"{inside}{key}", what="the key", supported=f"Supported: {', '.join(known)}."
            )


def _algorithm(algorithm: object, block_scales: AbstractSet[str], where: str) -> Algorithm:
    """Return what a recipe's algorithm does to weights whose blocks' scales come about so."""
    stated = dict(algorithm) if isinstance(algorithm, dict) else {"method": algorithm}
    method = stated.pop("method", None)
    named = f"{where}.method" if isinstance(algorithm, dict) else where
    if method == _HEADROOM:
        return _with_headroom(stated, block_scales, where)
    steps = {key: stated.pop(key) for key in dict(_FOUR_AND_SIX) if key in stated}
    _refuse_other_settings(stated, where)
    asked = method if isinstance(method, str | None) else repr_of(method)
    settings = sorted((key, plain(value)) for key, value in steps.items())
    found = _ALGORITHMS.get((asked, tuple(settings)))
    if found is None:
        what = repr_of({"method": method, **steps}) if steps else repr_of(method)
        known = "'max'; 'mse' with fp8_scale_sweep, or from 1 to 1.5 by 0.5; 'local_hessian'; "
        known += f"'{_HEADROOM}'"
        raise Problem(key=named, what=what, supported=f"Supported: {known}.")
    chosen, scales = found
    if scales is Scales.MAX and "four_over_six" not in block_scales:
        return PLAIN
    if others := sorted(block_scales - {chosen}):
        if chosen not in block_scales and others == ["dynamic"]:
            return PLAIN  # it has nothing to choose
        what = f"{asked or 'max'} where some blocks' scales are {' and '.join(others)}"
        known = f"Supported: all NVFP4 weights with {chosen} ones."
        raise Problem(key=named, what=what, supported=known)
    return Algorithm(scales=scales) if block_scales else PLAIN


def _with_headroom(
    stated: dict[str, object], block_scales: AbstractSet[str], where: str
) -> Algorithm:
    """Return what scales inputs with headroom, and weights as the recipe says beside it."""
    weights = stated.pop("weight_scale_algorithm", None) or "max"
    for key, value in _HEADROOM_SETTINGS.items():
        if (found := stated.pop(key, value)) != value:
            raise Problem(
                key=f"{where}.{key}", what=repr_of(found), supported=f"Supported: {value:g}."
            )
    _refuse_other_settings(stated, where)
    algorithm = _algorithm(weights, block_scales, f"{where}.weight_scale_algorithm")
    return dataclasses.replace(algorithm, inputs=InputRanges.ACT_HEADROOM)


def _refuse_other_settings(stated: Mapping[str, object], where: str) -> None:
    for key, value in stated.items():
        if key not in _HARMLESS:
            known = ", ".join(("method", *dict(_FOUR_AND_SIX), *_HARMLESS))
            raise Problem(key=f"{where}.{key}", what="the key", supported=f"Supported: {known}.")
        if (harmless := _HARMLESS[key]) and value not in harmless:
            known = " or ".join(repr(one) for one in harmless)
            what = repr_of(value)
            raise Problem(key=f"{where}.{key}", what=what, supported=f"Supported: {known}.")
    layerwise = stated.get("layerwise")
    if isinstance(layerwise, dict) and layerwise.get("get_qdq_activations_from_prev_layer"):
        key = f"{where}.layerwise.get_qdq_activations_from_prev_layer"
        raise Problem(
            key=key, what="True", supported="Layers are calibrated on unquantized inputs."
        )


class _Entries:
    """Goes through a list of quantizers."""

    def __init__(self, where: str) -> None:
        self._where = where
        self.kv_cache = KvFormat.NONE
        self.block_scales: set[str] = set()
        """How scales of NVFP4 weights' blocks come about."""

    def rules(self, entries: Sequence[object]) -> Iterator[Rule]:
        """Yield a rule for each entry that is about weights and inputs; note the KV cache.

        Raises:
            Problem: an entry has no counterpart.
        """
        for index, entry in enumerate(entries):
            where = f"{self._where}[{index}]"
            if not isinstance(entry, dict) or not isinstance(entry.get("quantizer_name"), str):
                known = "Each entry has a quantizer_name, and cfg or enable."
                raise Problem(key=where, what=repr_of(entry), supported=known)
            pattern = entry["quantizer_name"]
            where = f"{where} ('{pattern}')"
            _refuse_others(entry, ("quantizer_name", "cfg", "enable", "parent_class"), f"{where}.")
            is_off = entry.get("enable") is False
            if index == 0 and not (is_off and pattern == _ALL and "parent_class" not in entry):
                known = "The first entry has to turn all off: {quantizer_name: '*', enable: false}."
                raise Problem(key=where, what="what is left on (INT8)", supported=known)
            if self._is_foreign(entry, where):
                continue
            yield from self._rule(pattern, entry, where, is_off=is_off)

    def _is_foreign(self, entry: Mapping[str, object], where: str) -> bool:
        """Return whether an entry is about layers that are never quantized."""
        parent = entry.get("parent_class")
        if parent is None:
            return False
        if _FOREIGN_CLASSES.fullmatch(str(parent)) and entry.get("enable") is False:
            return True
        known = "Supported: classes that stay unquantized, with enable: false."
        raise Problem(key=f"{where}.parent_class", what=f"'{parent}'", supported=known)

    def _rule(
        self, pattern: str, entry: Mapping[str, object], where: str, *, is_off: bool
    ) -> Iterator[Rule]:
        cfg = entry.get("cfg")
        if not is_off and not isinstance(cfg, dict):
            what = "a list of steps" if isinstance(cfg, list) else "enable without cfg"
            raise Problem(
                key=f"{where}.{'cfg' if cfg else 'enable'}",
                what=what,
                supported="Supported: one cfg.",
            )
        if bmm := _BMM.search(pattern):
            self._set_kv(pattern, bmm[0], None if is_off else cfg, where)
            return
        if is_off:
            if pattern == _ALL:
                self.kv_cache = KvFormat.NONE
            yield Rule(quantizer=pattern, format=OFF)
            return
        kinds = [k for k in ("weight", "input") if f"{k}_quantizer" in pattern]
        if len(kinds) != 1:
            known = "Supported: weight_quantizer, input_quantizer, and [kv]_bmm_quantizer."
            raise Problem(key=f"{where}.quantizer_name", what="what it turns on", supported=known)
        found = format_of(cfg, kinds[0], f"{where}.cfg")
        if kinds == ["weight"] and found == Algorithm.FORMAT:
            self.block_scales.add(block_scales_of(cfg))
        yield Rule(quantizer=pattern, format=found)

    def _set_kv(self, pattern: str, last: str, cfg: object, where: str) -> None:
        """Take an entry about products within attention; keys and values are stored."""
        letters = {one for one in "qkpv" if fnmatchcase(f"{one}_bmm_quantizer", last)}
        if cfg is None:
            if "k" in letters or "v" in letters:
                self.kv_cache = KvFormat.NONE
            return
        if letters != {"k", "v"} or not pattern.startswith(_ALL) or pattern.count(_ALL) > 1:
            known = "Supported: *[kv]_bmm_quantizer, keys and values of every layer alike."
            raise Problem(key=f"{where}.quantizer_name", what="what it turns on", supported=known)
        self.kv_cache = kv_format_of(cfg, f"{where}.cfg")
