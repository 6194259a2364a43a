"""The table of versions says what each showed, and fails on a GO without scales."""

from typing import Any

from scripts.version_table import is_as_expected, markdown


def row(decision: str | None, code: int, *reasons: str) -> dict[str, Any]:
    tasks = {"add": [1.0, 0.98], "reverse": [0.9, None]}
    return {"decision": decision, "exit": code, "reason_codes": list(reasons), "tasks": tasks}


KNOWN = {
    "installs": True,
    "torch": "2.13.0+cpu",
    "adapters": {"found": ["load-report"], "missing": {"kv-scales": "there is no such class"}},
    "runs": {
        "nvfp4, declared": row("GO", 0),
        "fp8": row(None, 3, "engine-died"),
        "input scales deleted, declared": row("NO-GO", 4, "scale-missing"),
    },
}


def test_a_version_is_a_line() -> None:
    expected = (
        "| 0.31.0 | 2.13.0+cpu | kv-scales | 95.0 % | GO | exit 3 (engine-died) "
        "| NO-GO (scale-missing) |"
    )
    assert markdown({"0.31.0": KNOWN}).splitlines()[-1] == expected


def test_a_version_that_does_not_install_is_a_line() -> None:
    line = markdown({"0.1": {"installs": False, "torch": "none"}}).splitlines()[-1]
    assert line == "| 0.1 | none | does not install | - | - | - | - |"


def test_a_go_without_scales_is_not_as_expected() -> None:
    assert is_as_expected(KNOWN)
    runs = {"input scales deleted, declared": row("GO", 0)}
    assert not is_as_expected(KNOWN | {"runs": runs})
