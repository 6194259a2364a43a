"""Ask a vLLM what it can do, in its own environment; run by that environment's Python.

Importing vLLM takes 7 to 20 s, so one process asks everything. Each answer is a line of JSON on
its own, `{"question": NAME, "known": ANSWER}` or `{"question": NAME, "unknown": WHY}`, printed as
soon as it is known: where a version has something else in a place, or dies of a question, the
other answers hold. The exit status is 0 where vLLM could be imported.

The arguments are the folder of harness's plugin, which is asked what it finds, and the
declarations of which it is asked what becomes of them. Standard library and vLLM only.
"""

import argparse
import importlib
import json
import os
import pkgutil
import runpy
import sys
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any

_PARSERS = ("vllm.entrypoints.launchers.cli_args", "vllm.entrypoints.openai.cli_args")
"""Where `make_arg_parser` is: in 0.32.0, in 0.25.0."""
_SERVER = "vllm.entrypoints.openai.api_server"
_SAMPLES = (("text", "a/b?"), ("json", "{}"), ("float", "1.5"), ("size", "1k"), ("int", "1"))
"""What kind of value an option takes is found by what its type does not refuse, in this order."""
_LAYERS = "vllm.model_executor.layers"
_LISTS = "_POSSIBLE_"
"""Begins the name of each list of linear kernels in `kernels.linear`, by platform."""


def main() -> int:
    """Print every answer."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # vLLM's log lines, and whatever its libraries print
    questions: dict[str, Callable[[], Any]] = {
        "version": lambda: _attribute("vllm", "__version__"),
        "platform": _platform,
        "options": _options,
        "methods": lambda: _names(_attribute(f"{_LAYERS}.quantization", "QUANTIZATION_METHODS")),
        "quant_algos": lambda: _names(
            _attribute(f"{_LAYERS}.quantization.modelopt", "QUANT_ALGOS")
        ),
        "schemes": _schemes,
        "linear_kernels": _linear_kernels,
        "expert_backends": _expert_backends,
        "architectures": _architectures,
        "by_transformers": _by_transformers,
        "loaders": _loaders,
        "adapters": _adapters,
        "foretold": _foretold,
    }
    can_be_imported = False
    for name, ask in questions.items():
        answer = _answer(ask)
        can_be_imported = can_be_imported or (name == "version" and "known" in answer)
        answers.write(json.dumps({"question": name, **answer}) + "\n")
        answers.flush()
        if not can_be_imported:
            break
    return 0 if can_be_imported else 1


def _answer(ask: Callable[[], Any]) -> dict[str, Any]:
    try:
        known = ask()
        json.dumps(known)
    except (Exception, SystemExit) as error:  # noqa: BLE001 -- whatever another version does
        text = str(error).strip().splitlines() or [""]
        return {"unknown": f"{type(error).__name__}: {text[0][:300]}"}
    return {"known": known}


def _attribute(module: str, name: str) -> Any:  # noqa: ANN401 -- of any version
    return getattr(importlib.import_module(module), name)


def _names(listed: Iterable[object]) -> list[str]:
    return sorted({str(one) for one in listed})


def _platform() -> dict[str, Any]:
    platform = _attribute("vllm.platforms", "current_platform")
    capability = platform.get_device_capability() if not platform.is_cpu() else None
    return {
        "device": str(platform.device_type),
        "capability": list(capability) if capability is not None else None,
    }


def _options() -> list[dict[str, Any]]:
    """Return every option of the server's parser that has a long name."""
    listed = [_option(action) for action in _parser()._actions]  # noqa: SLF001 -- no other way
    return [one for one in listed if one["names"]]


def _parser() -> argparse.ArgumentParser:
    for name in _PARSERS:
        try:
            flexible = _attribute("vllm.utils.argparse_utils", "FlexibleArgumentParser")
            parser: argparse.ArgumentParser = _attribute(name, "make_arg_parser")(flexible())
        except (ImportError, AttributeError):
            continue
        return parser
    return _parser_of_the_server()


def _parser_of_the_server() -> argparse.ArgumentParser:
    """Run the server until it parses its arguments: there its parser is, wherever it is made."""

    class _CaughtError(Exception):
        parser: argparse.ArgumentParser

    def catch(self: argparse.ArgumentParser, *_args: object, **_options: object) -> None:
        caught = _CaughtError()
        caught.parser = self
        raise caught

    original, arguments = argparse.ArgumentParser.parse_known_args, sys.argv
    argparse.ArgumentParser.parse_known_args = catch  # type: ignore[assignment,method-assign]
    sys.argv = [_SERVER]
    try:
        runpy.run_module(_SERVER, run_name="__main__")
    except _CaughtError as caught:
        return caught.parser
    finally:
        argparse.ArgumentParser.parse_known_args = original  # type: ignore[method-assign]
        sys.argv = arguments
    message = f"{_SERVER} parses no arguments"
    raise RuntimeError(message)


def _option(action: argparse.Action) -> dict[str, Any]:
    names = [name[2:] for name in action.option_strings if name.startswith("--")]
    is_pair = isinstance(action, argparse.BooleanOptionalAction)
    negations = [name for name in names if is_pair and name.startswith("no-")]
    return {
        "names": [name for name in names if name not in negations],
        "negations": negations,
        "takes_value": action.nargs != 0,
        "kind": _kind(action),
        "choices": [str(choice) for choice in action.choices or () if choice is not None],
    }


def _kind(action: argparse.Action) -> str:
    accepts: Any = action.type
    for kind, sample in _SAMPLES if callable(accepts) else ():
        try:
            accepts(sample)
        except Exception:  # noqa: BLE001, S112 -- a type may refuse with any
            continue
        return kind
    return "text"


def _schemes() -> list[str]:
    """Return the classes of compressed-tensors' schemes."""
    module = importlib.import_module(f"{_LAYERS}.quantization.compressed_tensors.schemes")
    return [name for name in _names(vars(module)) if name.startswith("CompressedTensors")]


def _linear_kernels() -> dict[str, list[str]]:
    """Return the kernels of linear layers that run on this machine, by format, such as `nvfp4`."""
    module = importlib.import_module("vllm.model_executor.kernels.linear")
    platform = _attribute("vllm.platforms", "current_platform")._enum  # noqa: SLF001 -- its key
    lists = {
        name.removeprefix(_LISTS).removesuffix("KERNELS").strip("_").lower() or "integers": by
        for name, by in vars(module).items()
        if name.startswith(_LISTS) and isinstance(by, Mapping)
    }
    if not any(by.get(platform) for by in lists.values()):
        message = f"no list named {_LISTS}* has a kernel for {platform}"
        raise LookupError(message)
    return {
        kind: [str(getattr(one, "__name__", one)) for one in by.get(platform, ()) if _runs(one)]
        for kind, by in lists.items()
    }


def _runs(kernel: Any) -> bool:  # noqa: ANN401 -- a class of any version
    """Return whether a kernel's own check of this machine passes; one without any may run."""
    try:
        answer = kernel.is_supported()
        return bool(answer[0] if isinstance(answer, tuple) else answer)
    except Exception:  # noqa: BLE001 -- another way to ask it
        return True


def _expert_backends() -> dict[str, list[str]]:
    """Return the backends of routed experts that this version has names for, by format."""
    package = importlib.import_module(f"{_LAYERS}.fused_moe.oracle")
    found: dict[str, list[str]] = {}
    for one in pkgutil.iter_modules(package.__path__):
        try:
            module = importlib.import_module(f"{package.__name__}.{one.name}")
        except Exception:  # noqa: BLE001, S112 -- one of them may need what is not installed
            continue
        for kind in vars(module).values():
            is_backend = isinstance(kind, type) and issubclass(kind, Enum)
            if is_backend and kind.__module__ == module.__name__:
                found[one.name] = [member.name for member in kind]
    return _some(found, "an enumeration of backends")


def _architectures() -> list[str]:
    return _names(_attribute("vllm.model_executor.models", "ModelRegistry").get_supported_archs())


def _by_transformers() -> list[str]:
    """Return the architectures that vLLM can try to run with transformers' own code."""
    if not any(name.startswith("Transformers") for name in _architectures()):
        return []
    module = importlib.import_module("transformers.models.auto.modeling_auto")
    found: set[str] = set()
    for name, mapping in vars(module).items():
        if name.startswith("MODEL_FOR_") and isinstance(mapping, Mapping):
            for named in mapping.values():
                several = named if isinstance(named, tuple | list) else (named,)
                found.update(one for one in several if isinstance(one, str))
    return sorted(found)


def _loaders() -> dict[str, str]:
    """Return the class that loads each format of files."""
    by_format = _attribute("vllm.model_executor.model_loader", "_LOAD_FORMAT_TO_MODEL_LOADER")
    return {str(name): str(kind.__name__) for name, kind in by_format.items()}


def _foretold() -> dict[str, Any]:
    """Return what would become of each declaration on the GPU here; none for other platforms."""
    if _attribute("vllm.platforms", "current_platform").device_type != "cuda":
        return {}
    sys.path.insert(0, sys.argv[1])
    found: dict[str, Any] = _attribute("harness_vllm.foretell", "answers")(json.loads(sys.argv[2]))
    return found


def _adapters() -> dict[str, Any]:
    """Return what harness's plugin finds here, and what it does not."""
    sys.path.insert(0, sys.argv[1])
    platform = _attribute("vllm.platforms", "current_platform")
    name = "cpu" if platform.is_cpu() else str(platform.device_type)
    found: dict[str, Any] = _attribute("harness_vllm.adapters", "survey")(name)
    return found


def _some(found: dict[str, list[str]], what: str) -> dict[str, list[str]]:
    if not found:
        message = f"there is not {what}"
        raise LookupError(message)
    return found


if __name__ == "__main__":
    sys.exit(main())
