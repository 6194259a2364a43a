"""waivers.yaml: complete and strict, or refused as a whole."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.artifacts import Waiver
from harness.errors import ReasonCode, WaiverError
from harness.recipe.waivers import load_waivers

WAIVER: dict[str, Any] = {
    "check": "scales-finite",
    "checkpoint": "c" * 64,
    "reason": "accepted until the next export",
    "approver": "release manager",
    "expires": date(2999, 12, 31),
}


def write(folder: Path, *waivers: object, **more: object) -> Path:
    path = folder / "waivers.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "waivers": list(waivers)} | more))
    return path


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    text = WAIVER | {"expires": "2999-12-31", "check": "scales-positive"}
    assert load_waivers(write(tmp_path, WAIVER, text)) == (
        Waiver(**WAIVER),
        Waiver(**(WAIVER | {"check": "scales-positive"})),
    )


def test_no_file_is_no_waivers() -> None:
    assert load_waivers(None) == ()


def test_a_waiver_holds_on_its_last_day(tmp_path: Path) -> None:
    today = datetime.now(UTC).date()
    assert load_waivers(write(tmp_path, WAIVER | {"expires": today}))
    with pytest.raises(WaiverError, match=f"expired on {today - timedelta(days=1)}"):
        load_waivers(write(tmp_path, WAIVER | {"expires": today - timedelta(days=1)}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"reason": ""}, "waivers.0.reason"),
        ({"reason": "  "}, "waivers.0.reason"),
        ({"approver": ""}, "waivers.0.approver"),
        ({"check": ""}, "waivers.0.check"),
        ({"scope": "all"}, "waivers.0.scope"),
        ({"checkpoint": "c" * 63}, f"'{'c' * 63}' is no digest"),
        ({"checkpoint": "C" * 64}, "is no digest"),
        ({"checkpoint": "*"}, "'[*]' is no digest"),
        ({"expires": 20991231}, "waivers.0.expires"),
        ({"expires": "soon"}, "waivers.0.expires.*soon"),
        ({"expires": datetime(2999, 12, 31, tzinfo=UTC)}, "waivers.0.expires"),
    ],
)
def test_a_waiver_that_says_less_or_more_than_it_must_is_refused(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(WaiverError, match=words) as caught:
        load_waivers(write(tmp_path, WAIVER | change))
    assert caught.value.reason is ReasonCode.BAD_WAIVERS


@pytest.mark.parametrize("missing", sorted(WAIVER))
def test_every_field_must_be_there(tmp_path: Path, missing: str) -> None:
    waiver = {key: value for key, value in WAIVER.items() if key != missing}
    with pytest.raises(WaiverError, match=f"waivers.0.{missing}"):
        load_waivers(write(tmp_path, waiver))


def test_the_same_check_is_not_waived_twice(tmp_path: Path) -> None:
    with pytest.raises(WaiverError, match="'scales-finite' of checkpoint cccccccccccc twice"):
        load_waivers(write(tmp_path, WAIVER, WAIVER | {"reason": "another"}))


@pytest.mark.parametrize("more", [{"waivers": []}, {"version": 2}, {"default": "allow"}])
def test_a_file_of_another_shape_is_refused(tmp_path: Path, more: dict[str, Any]) -> None:
    with pytest.raises(WaiverError):
        load_waivers(write(tmp_path, WAIVER, **more))


@pytest.mark.parametrize("text", ["", "waivers: [", "just words"])
def test_a_file_that_is_no_yaml_of_waivers_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "waivers.yaml"
    path.write_text(text)
    with pytest.raises(WaiverError, match=str(path)):
        load_waivers(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WaiverError, match="cannot be read"):
        load_waivers(tmp_path / "none.yaml")
