"""`harness doctor --format F`: where a format is loaded, and what is computed."""

import json

from tests.typed import typed


def test_a_format_is_foretold_by_engine_release_and_gpu() -> None:
    done = typed("doctor", "--format", "nvfp4")
    assert done.code == 0, done.err
    rows = [line.split() for line in done.out.splitlines()]
    marlin = ["vllm", "0.25.0", "to", "0.33.0", "sm_75", "to", "sm_90", "experts", "hidden"]
    assert [*marlin, "NVFP4", "MARLIN", "MarlinExperts"] in rows
    assert any(row[:1] == ["sglang"] and "refused" in row for row in rows)


def test_a_trap_shows_as_misread_alone_and_loaded_inside_mixed_precision() -> None:
    done = typed("doctor", "--format", "FP8_PB_WO", "--json")
    told = [
        (one["engine"], one["mixed"], one["layers"]["layers"], one["layers"]["fate"])
        for one in json.loads(done.out)
        if one["gpu"] == "9.0"
    ]
    assert ("vllm 0.33.0", False, "experts", "misread") in told
    assert ("vllm 0.33.0", True, "experts", "loaded") in told


def test_what_nothing_is_known_of_is_refused_with_what_is() -> None:
    done = typed("doctor", "--format", "nvfp5")
    assert done.code == 2
    assert "'nvfp5'" in done.err
    assert "NVFP4_AWQ" in done.err
