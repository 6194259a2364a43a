"""Is the checkpoint made of its source model, all of it, and near it? Asked with `--source`.

The gate of a checkpoint that was made elsewhere asks less: `weights_near_baseline`.
"""

from collections.abc import Iterator

from harness.artifacts import Check, Severity
from harness.verify.causes import INVERTED, NIBBLES, SWIZZLED, TRANSPOSED
from harness.verify.compare import Misfit
from harness.verify.contents import Contents, Origin
from harness.verify.finding import finding
from harness.verify.modules import KV_LEAVES, SCALE_LEAVES, is_draft, is_quantized, quantized_stacks
from harness.verify.origin import copied_from, modules_from, source_part

_MADE_LEAVES = frozenset({*SCALE_LEAVES, *KV_LEAVES, "pre_quant_scale", "k_bias", "v_bias"})
"""Tensors that quantization adds."""
_LAYOUTS = frozenset({SWIZZLED, TRANSPOSED, INVERTED})
_FEW = 0.05
"""Share of weights that are damaged, where all others are rounded from the same model's."""
_FREE_KEYS = frozenset(
    {
        "quantization_config",
        "compression_config",
        "transformers_version",
        "torch_dtype",
        "dtype",
        "_name_or_path",
        "_attn_implementation",
        "use_cache",
    }
)
"""Settings that change no answer, and those that quantization writes."""


def source_tensors_accounted(contents: Contents) -> Check:
    """Ask whether each tensor of the source is in the checkpoint, and nothing that it lacks."""
    origin = origin_of(contents)
    missing = [name for name in _missing(contents, origin) if not is_draft(name, contents.drafts)]
    extra = list(_extra(contents, origin))
    faults = [f"{name} is missing" for name in missing]
    faults += [f"{name} is not in the source" for name in extra]
    return finding(
        "source-tensors-accounted",
        faults,
        good=f"all {_num_wanted(contents)} tensors of the source's model are accounted for",
        bad=f"{len(missing)} tensors of the source are missing, {len(extra)} are not from it",
    )


def _num_wanted(contents: Contents) -> int:
    origin = origin_of(contents)
    return sum(not is_draft(name, contents.drafts) for name in origin.comparison.source.headers)


def draft_head_kept(contents: Contents) -> Check:
    """Ask for the head that guesses tokens ahead.

    Without it the model still answers. A part of it is of no use to any engine, and an engine that
    loads it finds holes: that is an error.
    """
    missing = [n for n in _missing(contents, origin_of(contents)) if is_draft(n, contents.drafts)]
    is_gone = not any(is_draft(name, contents.drafts) for name in contents.tensors)
    return finding(
        "draft-head-kept",
        missing,
        good="no tensor of a multi-token prediction head is missing",
        bad=f"{len(missing)} tensors of the multi-token prediction head are missing, so that "
        "speculative decoding with it is not possible",
        severity=Severity.WARNING if is_gone else Severity.ERROR,
    )


def _missing(contents: Contents, origin: Origin) -> Iterator[str]:
    tensors = contents.tensors
    is_tied = bool(contents.config.get("tie_word_embeddings"))
    for name, header in origin.comparison.source.headers.items():
        if name in tensors or (is_tied and name == "lm_head.weight"):
            continue
        ways = modules_from(name, header, origin.comparison.source)
        missing = [[wanted for wanted in way if not _is_there(contents, wanted)] for way in ways]
        yield from min(missing, key=len)


def _is_there(contents: Contents, name: str) -> bool:
    """Return whether a tensor of the source is in the checkpoint, however it is stored."""
    module = name.removesuffix(".weight")
    is_packed = "weight_packed" in contents.modules.get(module, {})
    return name in contents.tensors or is_packed or _is_stacked(contents, name)


def _is_stacked(contents: Contents, name: str) -> bool:
    """Return whether a stack of the checkpoint holds an expert's tensor."""
    experts, _, rest = name.partition(".experts.")
    stack = "down_proj" if "down_proj" in rest or ".w2." in rest else "gate_up_proj"
    return bool(rest) and f"{experts}.experts.{stack}" in contents.tensors


def _extra(contents: Contents, origin: Origin) -> Iterator[str]:
    is_tied = bool(contents.config.get("tie_word_embeddings"))
    source = origin.comparison.source
    for name, header in contents.tensors.items():
        module, leaf = contents.place_of(name)
        if leaf in _MADE_LEAVES or (is_tied and module == "lm_head"):
            continue
        if is_quantized(contents.modules[module]):
            is_weight = leaf in {"weight", "weight_packed"}
            is_known = source_part(module, source) or copied_from(name, header, source)
            if is_weight and not is_known:
                yield name
        elif not copied_from(name, header, source):
            yield name


def unquantized_copied(contents: Contents) -> Check:
    """Ask whether everything that is not quantized is the source's, byte for byte.

    Norms that were only rounded once more are a warning.
    """
    comparison = origin_of(contents).comparison
    changed, rounded = comparison.changed, comparison.rounded
    bad = f"{len(changed)} of {comparison.num_copied} unquantized tensors differ from the source"
    if not changed:
        bad = f"{len(rounded)} of {comparison.num_copied} unquantized tensors were rounded again"
    folded = ""
    if comparison.num_folded:
        folded = (
            f", {comparison.num_folded} of them times powers of two that other weights of their "
            "layer take up: it computes the same bits"
        )
    return finding(
        "unquantized-tensors-copied",
        [*changed, *rounded],
        good=f"{comparison.num_copied} unquantized tensors are those of the source{folded}",
        bad=bad,
        severity=Severity.ERROR if changed else Severity.WARNING,
    )


def weights_near_source(contents: Contents) -> Check:
    """Ask whether each dequantized weight is what rounding makes of its source."""
    comparison = origin_of(contents).comparison
    fits, misfits = comparison.fits, [*comparison.misfits, *comparison.misscaled]
    largest: dict[str, float] = {}
    for one in fits.values():
        largest[one.algo] = max(largest.get(one.algo, 0.0), one.fit.error)
    spelled = ", ".join(f"{algo} {error:.2%}" for algo, error in sorted(largest.items()))
    stacks = len(quantized_stacks(contents.modules))
    left_out = f"; {stacks} stacks of experts are not compared here" if stacks else ""
    if comparison.num_refolded:
        left_out = (
            f"; {comparison.num_refolded} of them times powers of two that cancel, as the source "
            f"shows{left_out}"
        )
    return finding(
        "weights-near-source",
        [_spelled(misfit) for misfit in misfits],
        good=f"{len(fits)} quantized weights are near their source; largest relative error: "
        f"{spelled or 'nothing to compare'}{left_out}",
        bad=f"{len(misfits)} of {len(fits) + len(comparison.misfits)} quantized weights "
        "are not what rounding makes of their source",
    )


def weights_near_baseline(contents: Contents) -> Check:
    """Ask whether the few weights that are not near the model it is compared with are faults.

    A checkpoint that was made elsewhere may have been trained on, smoothed or rotated, and then
    most of its weights are other ones. Where nearly all are what rounding makes of the baseline's,
    it was made from them, and those that are not are damaged. Scores may not show it: two experts
    of one layer that have each other's scales cost next to nothing.
    """
    comparison = origin_of(contents).comparison
    misfits = [*comparison.misfits, *comparison.misscaled]
    num_compared = len(comparison.fits) + len(comparison.misfits)
    is_made_from = len(misfits) <= _FEW * num_compared
    others = f"{len(misfits)} of {num_compared} quantized weights"
    return finding(
        "weights-near-baseline",
        [_spelled(misfit) for misfit in misfits] if is_made_from else [],
        good=f"{others} are not rounded from the baseline's, so that it was changed by more than "
        "quantization, and this says nothing of it"
        if misfits
        else f"{num_compared} quantized weights are near the baseline's",
        bad=f"{others} are not what rounding makes of the baseline's weights, as all others are",
    )


def nibbles_in_order(contents: Contents) -> Check:
    """Ask whether the even column is in the low half of each byte."""
    swapped = [m for m in origin_of(contents).comparison.misfits if m.cause == NIBBLES]
    return finding(
        "nibbles-in-order",
        [_spelled(misfit) for misfit in swapped],
        good="no weight would fit its source with the codes of each byte swapped",
        bad=f"{len(swapped)} weights fit their source with the two codes of each byte swapped",
    )


def scales_in_order(contents: Contents) -> Check:
    """Ask whether block scales lie in rows, and global scales are the right way up."""
    misplaced = [m for m in origin_of(contents).comparison.misfits if m.cause in _LAYOUTS]
    return finding(
        "scale-layout",
        [_spelled(misfit) for misfit in misplaced],
        good="no weight would fit its source with its scales in another order",
        bad=f"{len(misplaced)} weights fit their source with their scales in another order",
    )


def _spelled(misfit: Misfit) -> str:
    cause = f": {misfit.cause}" if misfit.cause else ""
    if misfit.fit is None:
        return f"{misfit.module}{cause}"
    return f"{misfit.module} is off by {misfit.fit.error:.1%}{cause}"


def config_as_source(contents: Contents) -> Check:
    """Ask whether config.json describes the same model as that of the source."""
    origin = origin_of(contents)
    faults = list(_differences(origin.config, contents.config, ""))
    return finding(
        "config-matches-source",
        faults,
        good="config.json describes the model of the source",
        bad=f"{len(faults)} settings in config.json differ from the source",
    )


def _differences(source: object, stored: object, path: str) -> Iterator[str]:
    """Yield the settings that both have, with other values; None counts as absent."""
    if isinstance(source, dict) and isinstance(stored, dict):
        for key in sorted(source.keys() & stored.keys() - _FREE_KEYS):
            if not (path and key == "model_type"):  # libraries respell those of parts
                yield from _differences(source[key], stored[key], f"{path}.{key}" if path else key)
    elif source != stored and source is not None and stored is not None:
        yield f"{path} is {stored!r} and was {source!r}"


def origin_of(contents: Contents) -> Origin:
    """Return the source; these checks run only where one was named."""
    if contents.origin is None:
        message = "a check against the source ran without one"
        raise AssertionError(message)
    return contents.origin
