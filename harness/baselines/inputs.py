"""What decides a baseline's answers, gathered."""

from collections.abc import Mapping
from importlib.metadata import version

from harness import __version__
from harness.artifacts import BaselineInputs, EngineSpec, Suite
from harness.models import Source, architecture_of

_PACKAGES = ("torch", "transformers", "lm_eval", "safetensors", "tokenizers")


def versions(suite: Suite | None = None) -> Mapping[str, str]:
    """Return the versions of harness and of the packages that change numbers.

    Where NeMo Evaluator asks a part of the suite, its own too, with what it told of its tasks.
    """
    ours = {"harness": __version__} | {name: version(name) for name in _PACKAGES}
    nel = None if suite is None else suite.nel
    return ours if nel is None else ours | {"nemo-evaluator": f"{nel.version} {nel.digest}"}


def inputs_of(source: Source, engine: EngineSpec, suite: Suite) -> BaselineInputs:
    """Return what decides the answers of `source` on a resolved engine."""
    return BaselineInputs(
        model=source.name,
        model_digest=source.digest,
        suite=suite.name,
        suite_digest=suite.digest,
        engine=engine.identity(),
        versions=versions(suite),
        architecture=architecture_of(source.config),
    )
