"""What engines make of a checkpoint's files, said once: export, verify and serve ask here.

What is declared (declaration.py, compressed.py), in which words (algorithms.py); which layers an
engine runs under which names (layers.py, vllm.json) and what it takes each for (rules.py); what
each version was seen to load and compute (capabilities.py), what it says of itself (abilities.py)
and what follows from both (refused.py); what a folder asks of it (demands.py).
"""

from harness.artifacts import MIXED
from harness.engines.abilities import NOTHING_ASKED, Abilities
from harness.engines.algorithms import (
    ALGORITHMS,
    COMPRESSED,
    LOADED,
    MODELOPT,
    NATIVE_FP8,
    NATIVE_MXFP4,
    READ,
    parts_of,
)
from harness.engines.capabilities import (
    CAPABILITIES,
    SETUP,
    Capability,
    capability_of,
)
from harness.engines.compressed import is_pattern_broken
from harness.engines.declaration import (
    KV,
    SIDECAR,
    Declaration,
    LayerDeclared,
    contradictions,
    read_declarations,
    refuse_unread,
)
from harness.engines.demands import (
    Demands,
    architectures_of,
    has_kv_scales,
    is_attention,
    read_declared,
    read_demands,
)
from harness.engines.foretold import Fate, Foretold, foretell_all, questions
from harness.engines.kernels import exercised, unnamed_kernels
from harness.engines.layers import (
    FUSED,
    INDEXER,
    USUAL,
    EngineFamily,
    EngineLayer,
    engine_layers,
    fused_of,
)
from harness.engines.loading import Loader, engines_for, is_in_sources, loaders_of
from harness.engines.refused import refuse_unsupported
from harness.engines.rules import Asked, Rules
from harness.engines.sglang import Place, foretell_sglang, refuse_unserved, sglang_flag
from harness.engines.trtllm import doubts_of_trtllm, refuse_unread_by_trtllm
from harness.engines.versions import (
    WIDTH_MULTIPLE,
    Engine,
    any_engine,
    engine_of,
    find_engine,
    known_engines,
)

__all__ = [
    "ALGORITHMS",
    "CAPABILITIES",
    "COMPRESSED",
    "FUSED",
    "INDEXER",
    "KV",
    "LOADED",
    "MIXED",
    "MODELOPT",
    "NATIVE_FP8",
    "NATIVE_MXFP4",
    "NOTHING_ASKED",
    "READ",
    "SETUP",
    "SIDECAR",
    "USUAL",
    "WIDTH_MULTIPLE",
    "Abilities",
    "Asked",
    "Capability",
    "Declaration",
    "Demands",
    "Engine",
    "EngineFamily",
    "EngineLayer",
    "Fate",
    "Foretold",
    "LayerDeclared",
    "Loader",
    "Place",
    "Rules",
    "any_engine",
    "architectures_of",
    "capability_of",
    "contradictions",
    "doubts_of_trtllm",
    "engine_layers",
    "engine_of",
    "engines_for",
    "exercised",
    "find_engine",
    "foretell_all",
    "foretell_sglang",
    "fused_of",
    "has_kv_scales",
    "is_attention",
    "is_in_sources",
    "is_pattern_broken",
    "known_engines",
    "loaders_of",
    "parts_of",
    "questions",
    "read_declarations",
    "read_declared",
    "read_demands",
    "refuse_unread",
    "refuse_unread_by_trtllm",
    "refuse_unserved",
    "refuse_unsupported",
    "sglang_flag",
    "unnamed_kernels",
]
