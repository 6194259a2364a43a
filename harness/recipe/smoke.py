"""Read a smoke set: the few prompts that both arms answer before anything is scored.

A set has a digest of its own, which names the baseline's kept answers. It is no part of the
suite's, so that other prompts cost a minute and no baseline its scores.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from harness import shipped
from harness.artifacts import Ask, Passage, SmokeSet, digest_of
from harness.artifacts.limits import Count, Seed
from harness.errors import SuiteError
from harness.recipe.names import choose_file, first_double
from harness.recipe.schema import Strict, read_yaml

_MAX_TOP_K = 20
"""vLLM gives no more unless it is told so."""


class _SmokeFile(Strict):
    version: Literal[1]
    name: str
    apply_chat_template: bool
    max_model_len: Count
    seed: Seed
    top_k: Annotated[int, Field(ge=1, le=_MAX_TOP_K)]
    passages: Annotated[tuple[Passage, ...], Field(min_length=2)]
    asks: Annotated[tuple[Ask, ...], Field(min_length=1)]


def load_smoke(name: str, *, beside: Path | None = None) -> SmokeSet:
    """Read the smoke set `name` (a shipped one, or a YAML file).

    Args:
        name: `canary`, `general`, or a path that ends in .yaml or .yml.
        beside: folder that a relative path starts from, such as the suite's.

    Raises:
        SuiteError: there is no such set, its file is malformed, or two of its parts share an id.
    """
    if beside is not None and name.endswith((".yaml", ".yml")):
        name = str(beside / name)
    path = choose_file(name, shipped.smoke(), "smoke set", SuiteError)
    file = read_yaml(path, _SmokeFile, SuiteError)
    for parts in (file.passages, file.asks):
        ids = [part.id for part in parts]
        twice = first_double(ids)
        if twice is not None:
            message = f"'{path}' has the id '{twice}' twice. Rename one."
            raise SuiteError(message)
    settings = file.model_dump(exclude={"version", "passages", "asks"})
    digest = digest_of(settings, file.passages, file.asks)
    return SmokeSet(**settings, passages=file.passages, asks=file.asks, digest=digest)
