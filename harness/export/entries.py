"""How single modules are spelled in the list of those that engines must leave alone."""

import re
from collections.abc import Iterable, Iterator

OF_EXPERT = re.compile(r"(?P<experts>.+\.experts)(\.\d+\..+)?")


def exact_entries(modules: Iterable[str]) -> Iterator[str]:
    """Yield modules by name, and the module of all experts instead of each expert's projections."""
    for module in modules:
        found = OF_EXPERT.fullmatch(module)
        if found:
            yield found["experts"]
            yield f"{found['experts']}*"
        else:
            yield module
