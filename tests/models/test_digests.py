"""A folder that is looked at is the same before, meanwhile and afterwards."""

from pathlib import Path

import pytest

from harness.errors import EvidenceError
from harness.models import digest_folder, unchanged


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint whose file is a link, as in a hub's cache."""
    (tmp_path / "blob").write_text("weights")
    (tmp_path / "other").write_text("OTHERS!")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "model.safetensors").symlink_to(tmp_path / "blob")
    return tmp_path / "model"


def test_a_folder_that_nobody_touches_is_unchanged(folder: Path) -> None:
    with unchanged(folder, digest_folder(folder), meanwhile="loaded"):
        pass


def test_a_file_that_was_changed_is_said_with_both_digests(folder: Path) -> None:
    digest = digest_folder(folder)
    with (
        pytest.raises(EvidenceError, match=rf"while it was loaded: .* was {digest:.12}"),
        unchanged(folder, digest, meanwhile="loaded"),
    ):
        (folder / "config.json").write_text("[]")


def test_a_folder_that_was_exchanged_and_put_back_is_said(folder: Path) -> None:
    digest, aside = digest_folder(folder), folder.with_name("aside")
    with (
        pytest.raises(EvidenceError, match="exchanged and put back, while it was loaded"),
        unchanged(folder, digest, meanwhile="loaded"),
    ):
        folder.rename(aside).rename(folder)


def test_a_link_that_led_elsewhere_for_a_moment_is_said(folder: Path) -> None:
    link = folder / "model.safetensors"
    before = link.readlink()
    digest = digest_folder(folder)

    def lead_to(*targets: Path) -> None:
        for target in targets:
            link.unlink()
            link.symlink_to(target)

    with (
        pytest.raises(EvidenceError, match="exchanged and put back"),
        unchanged(folder, digest, meanwhile="loaded"),
    ):
        lead_to(before.with_name("other"), before)


def test_a_folder_that_is_gone_is_said(folder: Path) -> None:
    digest = digest_folder(folder)
    with (
        pytest.raises(EvidenceError, match="is gone"),
        unchanged(folder, digest, meanwhile="loaded"),
    ):
        folder.rename(folder.with_name("aside"))
