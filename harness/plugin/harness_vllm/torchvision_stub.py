"""An empty torchvision for the CPU build, where the real one cannot be imported.

The torchvision that the CPU build's requirements resolve to is built for CUDA and dies on import
("operator torchvision::nms does not exist"), so the environment leaves it out. vLLM's class of a
vision-language model still imports a processor that names
`torchvision.transforms.v2.functional`, also where only text is served. Empty modules are enough
for that. An image cannot be processed with them: the first use fails with an AttributeError.
"""

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

_NAMES = (
    "torchvision",
    "torchvision.transforms",
    "torchvision.transforms.v2",
    "torchvision.transforms.v2.functional",
)


class _Names:
    """Gives every name as its own value, as an enumeration that is only mentioned needs."""

    def __getattr__(self, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


def stub_torchvision() -> None:
    """Put empty modules in place of torchvision, where it is not installed."""
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is not None:
        return
    import_utils = importlib.import_module("transformers.utils.import_utils")
    import_utils.is_torchvision_available()  # its answer is cached, and must stay "no"
    for name in _NAMES:
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None, is_package=True)
        module.__path__ = []
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
            vars(module)["InterpolationMode"] = _Names()
