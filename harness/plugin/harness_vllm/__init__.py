"""vLLM general plugin of harness: what was loaded, the CPU kernels that are missing, and ends.

vLLM calls `register` in every process that it starts. Nothing is imported before that, because
vLLM logs and forgets a plugin that fails to import, while it stops on one whose function raises.
"""

import multiprocessing

__all__ = ["register"]


def register() -> None:
    """Install the plugin in this process; a second call does nothing more.

    Raises:
        RuntimeError: This version of vLLM, or this platform, is not a known one.
    """
    from .parent import end_with_parent  # noqa: PLC0415 -- see the module's docstring

    end_with_parent()
    from .listening import listen_here_alone  # noqa: PLC0415 -- imports torch

    listen_here_alone()
    from vllm.platforms import current_platform  # noqa: PLC0415 -- see the module's docstring
    from vllm.version import __version__  # noqa: PLC0415 -- see the module's docstring

    from .versions import check  # noqa: PLC0415 -- see the module's docstring

    platform = "cpu" if current_platform.is_cpu() else str(current_platform.device_type)
    check(__version__, platform)
    if multiprocessing.parent_process() is None:  # the process that answers requests
        from .guard import guard_all_paths  # noqa: PLC0415 -- names what only a known version has

        guard_all_paths()
    from . import loading  # noqa: PLC0415 -- names what only a known version has

    if platform == "cpu":
        from .torchvision_stub import stub_torchvision  # noqa: PLC0415 -- CPU only

        stub_torchvision()
    loading.install(platform=platform)
