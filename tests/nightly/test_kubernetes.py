"""The Jobs for Kubernetes, held against the schema of its API."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.errors import UsageError
from harness.nightly.kubernetes import kubernetes_text
from tests.nightly.clusters import CELLS, ODD, Cell, placing

IMAGE = f"registry.example:5000/team/harness@sha256:{'0a' * 32}"


def jobs(folder: Path, *cells: Cell, **more: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - text
    settings = {"image": IMAGE, "claim": "nights", "mount": str(folder.parent), **more}
    settings = {key: value for key, value in settings.items() if value is not None}
    text = kubernetes_text(cells or CELLS, placing(folder, **settings))
    return list(yaml.safe_load_all(text))


def pod(job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = job["spec"]["template"]["spec"]
    return found


def test_each_cell_is_a_job_that_types_it(tmp_path: Path) -> None:
    *cells, collect = jobs(tmp_path)
    typed = [pod(job)["containers"][0]["args"] for job in cells]
    assert sorted(one[3] for one in typed) == sorted(cell.name for cell in CELLS)
    assert typed[0][:3] == ["nightly", str(tmp_path / "matrix.yaml"), "--only"]
    assert typed[0][4:] == ["--night", "2031-12-31", "--out", str(tmp_path / "nights")]
    last = pod(collect)["containers"][0]["args"]
    assert last[2:4] == ["--collect", "--night"]
    assert last[-2:] == ["--wait", "24h"]
    assert len({job["metadata"]["name"] for job in [*cells, collect]}) == len(CELLS) + 1


def test_a_cell_gets_the_gpus_that_it_needs(tmp_path: Path) -> None:
    *cells, collect = jobs(tmp_path)
    asked = {
        job["metadata"]["annotations"]["nightly.harness/cell"]: pod(job)["containers"][0][
            "resources"
        ].get("limits")
        for job in cells
    }
    assert asked["moe-fp8"] == {"nvidia.com/gpu": 2}
    assert asked["dense"] == {"nvidia.com/gpu": 1}
    assert asked["canary-nvfp4"] is None
    assert {pod(job).get("nodeSelector", {}).get("nvidia.com/gpu.product") for job in cells} == {
        "h200",
        None,
    }
    assert "limits" not in pod(collect)["containers"][0]["resources"]


def test_a_failed_pod_is_not_started_again_and_an_evicted_one_is(tmp_path: Path) -> None:
    for job in jobs(tmp_path):
        spec = job["spec"]
        assert spec["backoffLimit"] == 0
        assert spec["podFailurePolicy"]["rules"] == [
            {
                "action": "Ignore",
                "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
            }
        ]
        assert pod(job)["restartPolicy"] == "Never"


def test_with_a_queue_the_cells_wait_for_it_and_what_collects_does_not(tmp_path: Path) -> None:
    *cells, collect = jobs(tmp_path, queue="gpu-queue")
    for job in cells:
        assert job["spec"]["suspend"] is True
        assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpu-queue"
    assert collect["spec"]["suspend"] is False
    assert "kueue.x-k8s.io/queue-name" not in collect["metadata"]["labels"]


def test_without_a_queue_nothing_is_suspended_for_ever(tmp_path: Path) -> None:
    assert not any(job["spec"]["suspend"] for job in jobs(tmp_path))


def test_of_a_secret_the_text_holds_the_name_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_very-secret")
    made = jobs(tmp_path, secret="hub")  # noqa: S106 - its name
    assert pod(made[0])["containers"][0]["envFrom"] == [{"secretRef": {"name": "hub"}}]
    assert "very-secret" not in yaml.safe_dump(made)


def test_no_path_is_taken_for_a_variable(tmp_path: Path) -> None:
    made = jobs(tmp_path / ODD, Cell("a"))
    arguments = pod(made[0])["containers"][0]["args"]
    assert arguments[1].replace("$$(", "$(") == str(tmp_path / ODD / "matrix.yaml")
    assert "$$(touch" in arguments[1]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"image": None}, "has to be told image"),
        ({"image": "harness:latest"}, "an image by digest"),
        ({"claim": None}, "has to be told claim"),
        ({"queue": "Not A Queue"}, "the name of a LocalQueue"),
        ({"mount": "/elsewhere"}, "is not below '/elsewhere'"),
        ({"partition": "gpu"}, "--set partition: Kubernetes has image"),
    ],
)
def test_what_the_api_would_not_take_is_refused(
    tmp_path: Path, more: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        jobs(tmp_path, **more)


def test_names_are_of_any_length_and_stay_apart(tmp_path: Path) -> None:
    cells = [Cell("A" * 64), Cell("A" * 63 + "_"), Cell("collect"), Cell("x-")]
    names = [job["metadata"]["name"] for job in jobs(tmp_path, *cells)]
    assert len(set(names)) == 5
    assert all(len(name) <= 52 and name == name.lower() for name in names)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("more", [{}, {"queue": "q", "cpu": "16", "memory": "64Gi", "secret": "s"}])
def test_the_api_of_kubernetes_takes_it(tmp_path: Path, more: dict[str, Any]) -> None:
    schema = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate")
    made = jobs(tmp_path / ODD, *CELLS, Cell("A" * 64), shared_memory="8Gi", **more)
    for job in made:
        schema.validate(job, "1.33", strict=True)
    made[0]["spec"]["backoffLimits"] = 0
    with pytest.raises(schema.ValidationError):
        schema.validate(made[0], "1.33", strict=True)
