"""Files are written to regular files or to nothing, whole or not at all."""

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import doors
from harness.errors import DiskFullError, PrerequisiteError, RunDirectoryError, UsageError


def a_link(path: Path) -> None:
    target = path.with_name("target")
    target.write_text("precious")
    path.symlink_to(target)


def a_dangling_link(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def a_loop(path: Path) -> None:
    path.symlink_to(path)


def a_folder(path: Path) -> None:
    path.mkdir()


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path has 108 bytes at most
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path.name)
    os.chdir(here)


NO_FILES = [a_link, a_dangling_link, a_loop, a_folder, a_pipe, a_socket]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode_of(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_mode, found.st_ino


@pytest.mark.parametrize("make", NO_FILES)
@pytest.mark.parametrize("write", [doors.check_file, lambda p: doors.write_atomically(p, "new")])
def test_what_is_no_regular_file_is_refused_and_stays(
    make: Callable[[Path], None], write: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    make(path)
    before, names = mode_of(path), names_in(tmp_path)
    with pytest.raises(UsageError, match=r"'.*file' is a"):
        write(path)
    assert mode_of(path) == before
    assert names_in(tmp_path) == names
    if make is a_link:
        assert (tmp_path / "target").read_text() == "precious"


@pytest.mark.parametrize("device", ["/dev/null", "/dev/stdout"])
def test_a_device_is_refused(device: str) -> None:
    with pytest.raises(UsageError, match=device):
        doors.check_file(Path(device))


@pytest.mark.parametrize("make", [make for make in NO_FILES if make is not a_folder])
def test_a_lock_is_a_regular_file(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "run.lock")
    with pytest.raises((UsageError, FileNotFoundError)):
        os.close(doors.open_regular(tmp_path / "run.lock"))
    with pytest.raises(UsageError, match="is no regular file"):
        doors.open_regular(tmp_path / "run.lock", create=True)
    assert not (tmp_path / "nowhere").exists()


def test_a_file_that_is_there_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in ("a long old text", "new"):
        doors.write_atomically(path, content)
    assert path.read_text() == "new"
    assert names_in(tmp_path) == ["file"]


def test_what_fails_midway_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    doors.write_atomically(path, "old")

    def full() -> None:
        with doors.written(path) as file:
            file.write(b"ne")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space"):
        full()
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["file"]


def test_a_link_where_the_temporary_file_goes_is_not_followed(tmp_path: Path) -> None:
    precious, path = tmp_path / "precious", tmp_path / "file"
    precious.write_text("precious")
    doors.partial_of(path).symlink_to(precious)
    doors.write_atomically(path, "new")
    assert (path.read_text(), precious.read_text()) == ("new", "precious")


def test_the_longest_name_that_a_file_can_have_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    doors.write_atomically(path, "new")
    assert path.read_text() == "new"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no/such/file", "its folder is not there"),
        ("file/file", "is or lies below a file"),
        ("x" * 300, "too long"),
        ("x/" * 3000, "too long"),
        ("a\0b", "is no path"),
        ("a\udcffb", "is not UTF-8"),
        ("loop/file", "leads back to itself"),
    ],
)
def test_a_path_that_cannot_be_is_named(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "file").touch()
    a_loop(tmp_path / "loop")
    with pytest.raises(UsageError, match=words) as caught:
        doors.check_file(tmp_path / name)
    assert len(str(caught.value).splitlines()) == 1
    str(caught.value).encode()


@pytest.mark.parametrize("name", ["file", "file/folder", "x" * 300, "a\0b", "loop", "dangling"])
def test_a_folder_that_cannot_be_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    a_loop(tmp_path / "loop")
    a_dangling_link(tmp_path / "dangling")
    with pytest.raises(UsageError):
        doors.check_folder(tmp_path / name)


def test_a_folder_that_is_not_there_yet_is_fine(tmp_path: Path) -> None:
    doors.check_folder(tmp_path / "a" / "b" / "c", num_bytes=1)
    assert names_in(tmp_path) == []


def test_too_little_space_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match="GiB free"):
        doors.check_folder(tmp_path / "new", num_bytes=1 << 60)


@pytest.mark.parametrize("written", ["model", "model/run", "."])
def test_nothing_is_written_in_or_around_what_is_read(tmp_path: Path, written: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "alias").symlink_to(tmp_path / "model")
    with pytest.raises(RunDirectoryError, match="is read and stays as it is"):
        doors.check_apart(tmp_path / written, [tmp_path / "alias"])
    doors.check_apart(tmp_path / "models", [tmp_path / "alias"])


def test_what_is_removed_is_a_link_and_not_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "precious").touch()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    doors.make_anew(tmp_path / "link")
    assert names_in(tmp_path / "link") == []
    assert (tmp_path / "folder" / "precious").exists()


def test_a_user_without_a_home_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        message = "Could not determine home directory."
        raise RuntimeError(message)

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(PrerequisiteError, match="Set HOME"):
        doors.user_cache()
    with pytest.raises(UsageError, match="Write the path in full"):
        doors.expanded("~nobody-of-this-name/model")


def test_a_full_disk_is_no_matter_of_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> os.stat_result:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "lstat", full)
    with pytest.raises(DiskFullError, match="no space is left"):
        doors.check_file(tmp_path / "file")
