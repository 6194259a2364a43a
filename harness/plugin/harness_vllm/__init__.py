"""vLLM general plugin of harness: what was loaded, the CPU kernels that are missing, and ends.

vLLM calls `register` in every process that it starts. Nothing is imported before that, because
vLLM logs and forgets a plugin that fails to import, while it stops on one whose function raises.
"""

__all__ = ["register"]


def register() -> None:
    """Install the plugin in this process; a second call does nothing more.

    Raises:
        RuntimeError: What keeps the server safe has no place in this vLLM.
    """
    from .parent import end_with_parent  # noqa: PLC0415 -- see the module's docstring

    end_with_parent()
    from . import adapters  # noqa: PLC0415 -- see the module's docstring

    missing: dict[str, str] = {}
    adapters.install(adapters.LISTENING, missing)
    from vllm.platforms import current_platform  # noqa: PLC0415 -- see the module's docstring

    from .guard import is_server_with_key  # noqa: PLC0415 -- see the module's docstring

    if is_server_with_key():
        adapters.install(adapters.API_KEY, missing)
    platform = "cpu" if current_platform.is_cpu() else str(current_platform.device_type)
    if platform == "cpu":
        adapters.install(adapters.TORCHVISION, missing)
    from .loading import watch_loads  # noqa: PLC0415 -- see the module's docstring

    watch_loads(platform=platform, missing=missing)
