"""SGLang plugin of harness: what was loaded, and processes that end with their parent.

SGLang calls `register` in every process that it starts, and applies the hooks that it registers.
It logs a plugin that fails and serves on: harness then finds no load report, which is an error.
"""

__all__ = ["register"]


def register() -> None:
    """Install the plugin in this process."""
    from harness_vllm.listening import listen_here_alone  # noqa: PLC0415 -- imports torch
    from harness_vllm.parent import end_with_parent  # noqa: PLC0415 -- beside it

    end_with_parent()
    listen_here_alone()
    from .loading import watch_loads  # noqa: PLC0415 -- imports SGLang

    watch_loads()
