"""An environment with a small package in vllm's place: as much of it as the questions look at.

The interpreter, the questions and harness's way to ask them are the real ones.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

_LAYERS = "vllm/model_executor/layers"
FILES: Mapping[str, str] = {
    "vllm/__init__.py": "from vllm.version import __version__",
    "vllm/version.py": "__version__ = '{version}'",
    "vllm/platforms/__init__.py": """
        class current_platform:
            device_type, _enum = "cpu", "CPU"
            is_cpu = staticmethod(lambda: True)
            get_device_capability = staticmethod(lambda: None)
        """,
    "vllm/utils/__init__.py": "",
    "vllm/utils/argparse_utils.py": "from argparse import ArgumentParser as FlexibleArgumentParser",
    "vllm/entrypoints/__init__.py": "print('a line of the log')",
    "vllm/entrypoints/openai/__init__.py": "",
    "vllm/entrypoints/openai/cli_args.py": """
        import argparse
        def make_arg_parser(parser):
            parser.add_argument("--host")
            parser.add_argument("--max-num-seqs", type=int)
            parser.add_argument("--moe-backend", choices=["auto", "emulation"])
            parser.add_argument("--kv-cache-dtype", choices=["auto", "fp8"])
            parser.add_argument("--enforce-eager", action=argparse.BooleanOptionalAction)
            return parser
        """,
    "vllm/model_executor/__init__.py": "",
    f"{_LAYERS}/__init__.py": "",
    f"{_LAYERS}/quantization/__init__.py": (
        "QUANTIZATION_METHODS = ['modelopt', 'modelopt_fp4', 'compressed-tensors']"
    ),
    f"{_LAYERS}/quantization/modelopt.py": (
        "QUANT_ALGOS = ['FP8', 'NVFP4', 'W4A16_NVFP4', 'MIXED_PRECISION']"
    ),
    f"{_LAYERS}/quantization/compressed_tensors/__init__.py": "",
    f"{_LAYERS}/quantization/compressed_tensors/schemes/__init__.py": (
        "class CompressedTensorsW4A4Fp4: pass"
    ),
    f"{_LAYERS}/fused_moe/__init__.py": "",
    f"{_LAYERS}/fused_moe/oracle/__init__.py": "",
    f"{_LAYERS}/fused_moe/oracle/nvfp4.py": """
        from enum import Enum
        class NvFp4MoeBackend(Enum):
            MARLIN, EMULATION = "MARLIN", "EMULATION"
        """,
    f"{_LAYERS}/fused_moe/oracle/broken.py": "import what_is_not_installed",
    "vllm/model_executor/kernels/__init__.py": "",
    "vllm/model_executor/kernels/linear/__init__.py": """
        class CPUFP8W8A8ScaledMMLinearKernel: pass
        class AmxKernel:
            is_supported = classmethod(lambda cls, capability=None: (False, "needs AMX"))
        class TorchKernel:
            is_supported = classmethod(lambda cls, capability=None: (True, None))
        _POSSIBLE_FP8_KERNELS = {{"CPU": [CPUFP8W8A8ScaledMMLinearKernel, AmxKernel, TorchKernel]}}
        _POSSIBLE_FP8_BLOCK_KERNELS = {{"CPU": [AmxKernel]}}
        _POSSIBLE_MXFP8_KERNELS = {{"CUDA": [object]}}
        """,
    "vllm/model_executor/models/__init__.py": """
        class ModelRegistry:
            get_supported_archs = staticmethod(
                lambda: ["Qwen3_5MoeForConditionalGeneration", "TransformersForCausalLM"]
            )
        """,
    "vllm/model_executor/model_loader/__init__.py": """
        class DefaultModelLoader: pass
        _LOAD_FORMAT_TO_MODEL_LOADER = {{"auto": DefaultModelLoader}}
        """,
    "transformers/__init__.py": "",
    "transformers/models/__init__.py": "",
    "transformers/models/auto/__init__.py": "",
    "transformers/models/auto/modeling_auto.py": (
        "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES = {{'olmo9': 'Olmo9ForCausalLM'}}"
    ),
    "torch/version.py": "cuda = None\nhip = None",
    "torch-2.13.0.dist-info/METADATA": "Name: torch\nVersion: 2.13.0+cpu",
    "vllm-1.dist-info/METADATA": "Name: vllm\nVersion: {version}",
}


def make_environment(
    folder: Path, *, version: str = "0.40.0", changes: Mapping[str, str | None] | None = None
) -> Path:
    """Make an environment and return its Python.

    Args:
        folder: where it shall be.
        version: of the package.
        changes: files that say something else, or that are not there (None).
    """
    base = Path(sys.executable).resolve()
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(base)
    (folder / "pyvenv.cfg").write_text(f"home = {base.parent}\n", encoding="utf-8")
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / name / "site-packages"
    for path, text in {**FILES, **(changes or {})}.items():
        if text is not None:
            file = packages / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(dedent(text.format(version=version)), encoding="utf-8")
    return python
