"""Whose container may be removed: only that of a run which is surely dead."""

import dataclasses
import subprocess
import sys

from harness.serve.docker.owner import Owner, is_stale, this_process


def dead_process() -> Owner:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return dataclasses.replace(this_process(), pid=str(ended.pid))


def test_the_container_of_a_living_run_is_left_alone() -> None:
    assert not is_stale(this_process().labels(), this_process())


def test_the_container_of_a_dead_run_is_stale() -> None:
    assert is_stale(dead_process().labels(), this_process())


def test_a_number_that_another_process_has_taken_does_not_keep_a_container() -> None:
    owner = dataclasses.replace(this_process(), started="1")
    assert is_stale(owner.labels(), this_process())


def test_a_container_from_before_the_machine_was_started_again_is_stale() -> None:
    owner = dataclasses.replace(this_process(), boot="another")
    assert is_stale(owner.labels(), this_process())


def test_nothing_is_known_of_another_machine() -> None:
    for change in ({"host": "another"}, {"host": "another", "boot": "another"}):
        owner = dataclasses.replace(dead_process(), **change)
        assert not is_stale(owner.labels(), this_process())


def test_nothing_is_known_of_another_namespace_of_processes() -> None:
    owner = dataclasses.replace(dead_process(), namespace="pid:[1]")
    assert not is_stale(owner.labels(), this_process())


def test_a_container_without_all_labels_is_left_alone() -> None:
    labels = dead_process().labels()
    for missing in labels:
        if missing != "harness.run":
            kept = {name: value for name, value in labels.items() if name != missing}
            assert not is_stale(kept, this_process())
