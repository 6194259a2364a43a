"""An image is asked what its vLLM can do, by a daemon whose containers are processes here."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from docker.client import DockerClient
from docker.errors import NotFound

from harness.errors import PrerequisiteError
from harness.serve.docker.image import ServingImage, find_image, image_answers
from tests.serve.vllm import fake_vllm

FAKE = Path(fake_vllm.__file__)


class Containers:
    """Runs what a container would, with vLLM's stand-in as its Python."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.variables = variables
        self.made: list[dict[str, Any]] = []

    def create(self, **options: Any) -> "Containers":  # noqa: ANN401 -- docker's
        self.made.append(options)
        return self

    def start(self) -> None:
        arguments = self.made[-1]["command"]
        self.done = subprocess.run(
            [sys.executable, str(FAKE), *arguments],
            env={**os.environ, **self.variables},
            capture_output=True,
            check=False,
        )

    def wait(self) -> dict[str, int]:
        return {"StatusCode": self.done.returncode}

    def logs(self, *, stdout: bool, stderr: bool) -> bytes:
        assert stdout != stderr
        return self.done.stdout if stdout else self.done.stderr

    def remove(self, **_: bool) -> None:
        message = "gone"
        raise NotFound(message)


class Daemon:
    """One image, whatever it is called."""

    def __init__(self, **variables: str) -> None:
        self.containers = Containers(variables)
        self.images = self
        self.id = "sha256:1"
        self.attrs: Mapping[str, object] = {}

    def get(self, _: str) -> "Daemon":
        return self


def image_of(daemon: Daemon, image_id: str) -> tuple[DockerClient, ServingImage]:
    client: DockerClient = daemon
    return client, dataclasses.replace(find_image(client, "an image"), id=image_id)


def test_an_image_is_asked_once_with_the_plugin_beside_the_questions() -> None:
    daemon = Daemon(FAKE_VERSION="0.40.0")
    client, image = image_of(daemon, "sha256:asked-once")
    found = image_answers(client, image).abilities
    assert found.quant_algos is not None
    assert "NVFP4" in found.quant_algos
    assert image.environment.version == "0.40.0"
    asked = daemon.containers.made[-1]
    assert asked["network_mode"] == "none"
    assert {mount["Target"] for mount in asked["mounts"]} >= {
        "/harness/questions.py",
        "/harness/plugin",
    }
    assert all(mount["ReadOnly"] for mount in asked["mounts"])
    count = len(daemon.containers.made)
    assert image_answers(client, image).abilities == found
    assert len(daemon.containers.made) == count


def test_a_question_that_an_image_cannot_answer_is_unknown() -> None:
    daemon = Daemon(FAKE_ANSWERS=json.dumps({"quant_algos": None}))
    found = image_answers(*image_of(daemon, "sha256:lacking")).abilities
    assert (found.quant_algos, found.unknown["quant_algos"]) == (None, "gone")


def test_an_image_with_a_vllm_that_is_too_old_is_refused() -> None:
    with pytest.raises(PrerequisiteError, match=r"0\.24\.0 \(cpu\) is older than 0\.25"):
        image_of(Daemon(FAKE_VERSION="0.24.0"), "sha256:old")
