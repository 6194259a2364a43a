"""What `harness doctor --vllm PATH` prints."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from textwrap import fill

from harness.artifacts import to_json
from harness.cli.console import Result
from harness.serve import VllmSurvey, survey_vllm

_INDENT = 25
_WIDTH = 100


def probe_vllm(place: Path) -> Result:
    """Say what a vLLM can do by its own account, and what that means for a verdict."""
    found = survey_vllm(str(place))
    return Result(text="\n".join(_lines(found)), values=to_json(found))


def _lines(found: VllmSurvey) -> Iterator[str]:
    yield f"vLLM {found.version} ({found.platform}, torch {found.torch}) in '{found.python}'"
    tested = ", ".join(found.tested_versions)
    facts: dict[str, str] = {
        "tested": "yes" if found.tested else f"no; tested are {tested}",
        "device": found.device,
        "modelopt algorithms": _listed(found, "quant_algos", found.quant_algos),
        "compressed-tensors": _listed(found, "schemes", found.schemes),
        "methods": _listed(found, "methods", found.methods),
        "linear kernels": _grouped(found, "linear_kernels", found.linear_kernels),
        "expert backends": _grouped(found, "expert_backends", found.expert_backends),
        "flags": _flags(found.flags),
        "emulation": ", ".join(found.emulation) or "none",
        "architectures": _architectures(found),
        "loaders": _listed(found, "loaders", found.loaders and sorted({*found.loaders.values()})),
        "plugin fits": _listed(found, "adapters", found.adapters),
        **{f"plugin lacks {name}": why for name, why in found.missing.items()},
    }
    for name, said in facts.items():
        yield _labelled(name, said)
    for sentence in found.means:
        yield _labelled("so", sentence)


def _labelled(name: str, said: str) -> str:
    label = f"  {name}: ".ljust(_INDENT)
    return fill(
        said,
        _WIDTH,
        initial_indent=label,
        subsequent_indent=" " * _INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _unknown(found: VllmSurvey, part: str) -> str:
    return f"not known ({found.unknown.get(part, 'it was not asked')})"


def _listed(found: VllmSurvey, part: str, names: Iterable[str] | None) -> str:
    return _unknown(found, part) if names is None else ", ".join(names) or "none"


def _grouped(found: VllmSurvey, part: str, names: Mapping[str, tuple[str, ...]] | None) -> str:
    if names is None:
        return _unknown(found, part)
    return "; ".join(f"{group}: {', '.join(some) or 'none'}" for group, some in names.items())


def _flags(flags: Mapping[str, bool | None]) -> str:
    words = {True: "takes", False: "lacks", None: "not known"}
    sorted_out = {
        word: [flag for flag, is_taken in flags.items() if is_taken is key]
        for key, word in words.items()
    }
    return "; ".join(f"{word} {', '.join(some)}" for word, some in sorted_out.items() if some)


def _architectures(found: VllmSurvey) -> str:
    if found.num_architectures is None:
        return _unknown(found, "architectures")
    others = found.num_by_transformers
    more = f", and can try {others} of transformers'" if others else ""
    return f"{found.num_architectures}{more}"
