"""A server's process that is begun before there is anything to serve: real processes, real HTTP."""

import dataclasses
import errno
import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from harness import arms
from harness.artifacts import Endpoint, ServerShare
from harness.errors import EngineError
from harness.preflight.devices import Memory
from harness.serve import Ahead, begun_ahead, resolve_engine, serve

from .conftest import Fake
from .test_server import is_listened_to, listed
from .test_strangers import status_of

Gone = Callable[[Iterable[int], float], bool]
MODULE = "vllm.entrypoints.openai.api_server"


@contextmanager
def begun(fake: Fake, gpus: tuple[int, ...] | None = None) -> Iterator[Ahead]:
    engine = resolve_engine(fake.engine)
    with begun_ahead(engine, lambda: 1 << 20, records=fake.records, gpus=gpus) as ahead:
        assert ahead is not None
        yield ahead


@contextmanager
def served(fake: Fake, ahead: Ahead | None = None) -> Iterator[Endpoint]:
    engine = resolve_engine(fake.engine)
    with serve(engine, fake.model, records=fake.records, ahead=ahead) as endpoint:
        assert isinstance(endpoint, Endpoint)
        yield endpoint


def waiting_pids() -> list[int]:
    """Return the process that waits, and its keepers."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended, or nobody has taken its status yet
            found += [one.pid] if "harness_vllm.waiting" in one.cmdline() else []
    return found


def starts_of(fake: Fake) -> int:
    path = Path(str(fake.engine.place)).parents[1] / "starts"
    return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0


def log_of(fake: Fake) -> str:
    return (fake.records / "server.log").read_text(encoding="utf-8")


def test_it_serves_what_it_is_told_and_is_gone_in_the_end(fake: Fake, all_gone: Gone) -> None:
    with begun(fake) as ahead:
        waiting = waiting_pids()
        assert (len(waiting), starts_of(fake), ahead.head_start_s) == (3, 0, 0.0)
        with served(fake, ahead) as endpoint:
            assert listed(endpoint) == [{"id": endpoint.model, "max_model_len": 64}]
            assert status_of(endpoint, "/v1/models", {}) == 401
            assert ahead.head_start_s > 0
            pids = fake.pids()
            assert pids[0] in waiting
        assert all_gone([*pids, *waiting], 0)
        assert not is_listened_to(endpoint.base_url)
    log = log_of(fake)
    assert log.index(f"{MODULE} is imported") < log.index("Initializing a V1 LLM engine")
    assert starts_of(fake) == 1


def test_its_deployment_is_that_of_a_server_that_was_not_begun(fake: Fake) -> None:
    with served(fake) as endpoint:
        usual = dataclasses.replace(endpoint.deployment, load_s=None)
    seen = json.loads((fake.records / "seen.json").read_text(encoding="utf-8"))
    with begun(fake) as ahead, served(fake, ahead) as one:
        assert dataclasses.replace(one.deployment, load_s=None) == usual
    again = json.loads((fake.records / "seen.json").read_text(encoding="utf-8"))
    differ = {"VLLM_API_KEY", "PWD", "OLDPWD"}
    assert {k: v for k, v in again["environment"].items() if k not in differ} == {
        k: v for k, v in seen["environment"].items() if k not in differ
    }
    port = seen["arguments"].index("--port") + 1
    seen["arguments"][port] = again["arguments"][again["arguments"].index("--port") + 1]
    assert again["arguments"] == seen["arguments"][2:]  # without `-m MODULE`


class _Spared:
    """Says that so many seconds were spared, whatever they were."""

    head_start_s = 1000.0

    def __init__(self, ahead: Ahead) -> None:
        self.serve = ahead.serve


def test_loading_counts_what_was_done_before(fake: Fake) -> None:
    with begun(fake) as ahead, served(fake, _Spared(ahead)) as endpoint:
        assert endpoint.deployment.load_s is not None
        assert endpoint.deployment.load_s > 1000


def test_only_imports_are_a_head_start_and_not_how_long_it_waited(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with begun(fake) as ahead:
        (folder,) = tmp_path.glob("harness-waiting-*")
        while not (folder / "seconds").exists():
            time.sleep(0.02)
        (folder / "seconds").write_text("0.007", encoding="ascii")
        with served(fake, ahead):
            assert ahead.head_start_s == 0.007
        with served(fake, ahead):
            assert ahead.head_start_s == 0


def test_one_that_is_not_needed_leaves_nothing(
    fake: Fake, all_gone: Gone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    fake.records.mkdir()
    (fake.records / "server.log").write_text("of an earlier run", encoding="utf-8")
    files = psutil.Process().num_fds()
    with begun(fake):
        waiting = waiting_pids()
    assert len(waiting) == 3
    assert all_gone(waiting, 0)
    assert log_of(fake) == "of an earlier run"
    assert [path.name for path in fake.records.iterdir()] == ["server.log"]
    assert list(temporary.iterdir()) == []
    assert psutil.Process().num_fds() == files


def test_one_that_was_begun_in_another_environment_gives_way(fake: Fake, all_gone: Gone) -> None:
    shared = dataclasses.replace(
        resolve_engine(fake.engine), share=ServerShare(cores=(0,), requests=1)
    )
    with begun(fake) as ahead:
        waiting = waiting_pids()
        with serve(shared, fake.model, records=fake.records, ahead=ahead) as endpoint:
            assert all_gone(waiting, 0)
            assert ahead.head_start_s == 0
            assert "VLLM_CPU_OMP_THREADS_BIND=0" in endpoint.deployment.arguments
    assert f"{MODULE} is imported" not in log_of(fake)


def test_one_of_a_vllm_that_was_replaced_meanwhile_gives_way(fake: Fake, all_gone: Gone) -> None:
    fake.how(FAKE_VERSION="0.31.0")
    with begun(fake) as ahead:
        waiting = waiting_pids()
        fake.how(FAKE_VERSION="0.32.0")
        with served(fake, ahead) as endpoint:
            assert all_gone(waiting, 0)
            assert endpoint.deployment.version.startswith("0.32.0")


@pytest.mark.parametrize("death", ["imports", "killed"])
def test_one_that_died_is_replaced(death: str, fake: Fake) -> None:
    if death == "imports":
        fake.how(FAKE_IMPORTS="ImportError: libcuda.so.1")
    with begun(fake) as ahead:
        if death == "killed":  # its keepers may not have seen it yet
            psutil.Process(waiting_pids()[-1]).kill()
        while death == "imports" and waiting_pids():
            time.sleep(0.05)
        with served(fake, ahead) as endpoint:
            assert listed(endpoint)
            assert ahead.head_start_s == 0


def test_it_serves_once_and_the_next_start_is_a_usual_one(fake: Fake) -> None:
    keys = []
    with begun(fake) as ahead:
        for _ in range(2):
            with served(fake, ahead) as endpoint:
                assert listed(endpoint)
                keys.append(endpoint.api_key)
    assert starts_of(fake) == 2
    assert len(set(keys)) == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"FAKE_VLLM": "die", "FAKE_LOG": "torch.OutOfMemoryError: CUDA out of memory."},
        {"FAKE_IMPORTS": "torch.OutOfMemoryError: CUDA out of memory.", "FAKE_IMPORT_S": "1"},
    ],
    ids=["of what it serves", "of its imports when it is told"],
)
def test_one_that_dies_is_explained_by_its_log(fake: Fake, settings: dict[str, str]) -> None:
    fake.how(**settings)
    with (
        begun(fake) as ahead,
        pytest.raises(EngineError, match="Memory ran out"),
        served(fake, ahead),
    ):
        pass
    assert "OutOfMemoryError" in log_of(fake)


def test_one_that_cannot_be_begun_costs_no_run(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no pipes here")

    monkeypatch.setattr("os.mkfifo", refused)
    engine = resolve_engine(fake.engine)
    with (
        caplog.at_level("INFO", "harness.arms"),
        arms.begun_ahead(engine, lambda: 1, records=fake.records, gpus=None) as ahead,
    ):
        assert ahead is None
        assert "no pipes here" in caplog.text
        with served(fake, ahead) as endpoint:
            assert listed(endpoint)


def test_its_key_does_not_stay_in_the_log(fake: Fake) -> None:
    fake.how(FAKE_VLLM="leak")
    with begun(fake) as ahead, served(fake, ahead) as one:
        key = one.api_key
        assert key
    assert key not in log_of(fake)
    assert "the key is ***" in log_of(fake)


@pytest.mark.parametrize(("free", "processes"), [(3 << 30, 0), (5 << 30, 3)])
def test_none_is_begun_where_memory_is_short(
    free: int, processes: int, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.arms.ahead.host_memory", lambda: Memory(free, 64 << 30))
    engine = resolve_engine(fake.engine)
    with arms.begun_ahead(engine, lambda: 1 << 20, records=fake.records, gpus=None) as ahead:
        assert (ahead is not None) == (processes > 0)
        assert len(waiting_pids()) == processes


def test_other_engines_have_nothing_to_begin(fake: Fake) -> None:
    engine = dataclasses.replace(fake.engine, name="reference", place=None)
    with begun_ahead(engine, lambda: 1, records=fake.records, gpus=None) as ahead:
        assert ahead is None
