"""The vLLM versions that this plugin knows; every other one is refused by name.

The plugin wraps private functions. What they are called and what they mean changes between
releases, and a wrapper that misses its target would make the gate look at the wrong thing without
a word. So a version is added here only after the tests of this folder have passed on it.
"""

SUPPORTED: dict[str, frozenset[str]] = {
    "0.25.0": frozenset({"cuda"}),
    "0.32.0": frozenset({"cpu"}),
}
"""Platforms by release. `cpu`: load report and kernels; `cuda`: load report only."""


def check(version: str, platform: str) -> None:
    """Pass where this pair of release and platform is known.

    Args:
        version: As vLLM gives it, with or without a local part such as `+cpu`.
        platform: `cpu` or `cuda`, or another platform's name.

    Raises:
        RuntimeError: The pair is not known.
    """
    release = version.partition("+")[0]
    if platform in SUPPORTED.get(release, frozenset()):
        return
    known = ", ".join(f"{v} ({'/'.join(sorted(p))})" for v, p in SUPPORTED.items())
    message = f"harness_vllm: vLLM '{version}' on '{platform}' is not known; known are {known}"
    raise RuntimeError(message)
