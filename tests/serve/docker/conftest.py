"""A daemon that is not there, one that is, and images in which vLLM is a stand-in."""

import io
import json
import os
import shutil
import tarfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from docker.client import DockerClient

from harness.artifacts import EngineSpec
from harness.errors import PrerequisiteError
from harness.serve.docker.daemon import connected
from tests.nouns import engine_spec
from tests.tiers import slow

IMAGE = os.environ.get("HARNESS_TEST_IMAGE", "harness/serve:cpu")
FAKE = Path(__file__).parents[1] / "vllm" / "fake_vllm.py"
# The first process of a container ignores SIGTERM unless it says what to do, as vLLM does.
WRAPPER = """#!/bin/sh
PATH="${PATH#/fake:}"
trap 'exit 143' TERM
python3 /fake/fake_vllm.py "$@" &
wait $!
"""


@pytest.fixture
def engine() -> EngineSpec:
    return engine_spec("docker", image="harness/serve:cpu")


@pytest.fixture
def model(tiny_qwen3_5_moe: Path, tmp_path: Path) -> Path:
    """A checkpoint that every user may read."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_qwen3_5_moe, folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


@pytest.fixture(scope="session")
@slow("containers are started")
def daemon() -> Iterator[DockerClient]:
    try:
        with connected() as client:
            yield client
    except PrerequisiteError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def serving_image(daemon: DockerClient) -> str:
    if not daemon.images.list(filters={"reference": IMAGE}):
        pytest.skip(f"no image '{IMAGE}'; docker/README.md says how it is built")
    return IMAGE


@pytest.fixture(scope="session")
def fake_image(daemon: DockerClient, serving_image: str) -> Iterator[Callable[..., str]]:
    """Build an image in which vLLM is fake_vllm.py; each set of variables once."""
    made: dict[str, str] = {}

    def make(**variables: str) -> str:
        lines = [f"ENV {name}={json.dumps(value)}" for name, value in variables.items()]
        dockerfile = "\n".join(
            [f"FROM {serving_image}", "COPY . /fake", "ENV PATH=/fake:$PATH", *lines]
        )
        if dockerfile not in made:
            context = {
                "Dockerfile": (dockerfile.encode(), 0o644),
                "fake_vllm.py": (FAKE.read_bytes(), 0o644),
                "python3": (WRAPPER.encode(), 0o755),
            }
            tag = f"harness/test:{uuid.uuid4().hex}"
            daemon.images.build(fileobj=_packed(context), custom_context=True, tag=tag, rm=True)
            made[dockerfile] = tag
        return made[dockerfile]

    yield make
    for tag in made.values():
        daemon.images.remove(tag, force=True)


def _packed(files: dict[str, tuple[bytes, int]]) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    buffer.seek(0)
    return buffer
