"""Does the ignore list mean what it says, and is what never may be quantized left alone?"""

import re
from collections.abc import Iterator

from harness.artifacts import Check, Severity
from harness.verify.contents import Contents
from harness.verify.finding import finding
from harness.verify.modules import is_quantized

_COUNTED = r"(?:layers|experts|blocks|h)"
_NUMBERED = re.compile(rf"{_COUNTED}\\?\.(?P<number>\d+)(?P<rest>.*)$")
_INDEX = re.compile(rf"(?:^|\.){_COUNTED}\.(?P<number>\d+)(?=\.|$)")
_PLAIN_PARTS = ("embed", "norm", "conv1d")
_LOADS_EMBEDDINGS = (
    "SGLang loads NVFP4 embeddings that quantized_layers names (its pull request 34222), no vLLM "
    "up to 0.33 loads any"
)


def patterns_precise(contents: Contents) -> Check:
    """Ask for entries of the ignore list that hit more layers than they name.

    `layers.1*` is about layers 10 to 19 too, and so, to an engine that looks for the entry
    anywhere in a name, is `layers.1`. A warning, as long as nothing quantized is hit.
    """
    declared = contents.declared
    faults: list[str] = []
    is_serious = False
    for entry in declared.ignore if declared else ():
        names = [name for name in _beyond(contents, entry) if name]
        if names:
            hit = [name for name in names if is_quantized(contents.modules[name])]
            is_serious = is_serious or bool(hit)
            faults.append(f"'{entry}' also hits {(hit or names)[0]}")
    return finding(
        "ignore-patterns-precise",
        faults,
        good="no entry of the ignore list hits more layers than it names",
        bad=f"{len(faults)} entries of the ignore list hit layers of other numbers"
        + (", quantized ones among them" if is_serious else ""),
        severity=Severity.ERROR if is_serious else Severity.WARNING,
    )


def _beyond(contents: Contents, entry: str) -> Iterator[str]:
    """Yield the modules that an entry hits by the first digits of their number alone."""
    found = _NUMBERED.search(entry)
    if found is None or contents.rules is None or not _is_open(found["rest"], entry):
        return
    number = found["number"]
    for name in contents.rules.hit_modules(entry, contents.modules):
        others = [index["number"] for index in _INDEX.finditer(name)]
        longer = any(o != number and o.startswith(number) for o in others)
        if longer and number not in others:
            yield name


def _is_open(rest: str, entry: str) -> bool:
    """Return whether a number at the end of an entry may go on in a name."""
    if entry.startswith("re:"):
        return rest in {"", ".*", ".+", ".*$", ".+$"}
    return rest in {"", "*"}


def embeddings_plain(contents: Contents) -> Check:
    """Ask whether an embedding, a norm or a convolution was quantized: few engines load that.

    An embedding that `quantized_layers` names was meant, and SGLang loads it: a warning where no
    engine is named.
    """
    faults = [
        name
        for name, module in contents.modules.items()
        if any(part in name.rpartition(".")[2] for part in _PLAIN_PARTS) and is_quantized(module)
    ]
    layers = contents.declared.layers if contents.declared else {}
    is_meant = all(name in layers and "embed" in name.rpartition(".")[2] for name in faults)
    loaded = f"; {_LOADS_EMBEDDINGS}" if is_meant else ""
    return finding(
        "embeddings-and-norms-unquantized",
        faults,
        good="no embedding, norm or convolution is quantized",
        bad=f"{len(faults)} embeddings, norms or convolutions are quantized{loaded}",
        severity=Severity.WARNING if is_meant and not contents.engine else Severity.ERROR,
    )
