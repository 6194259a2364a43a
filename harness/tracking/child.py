"""The child process in which a tracker's own library is at work.

Run as a script with a folder: order.json says what to send and where, done.json what became of it.
A tracker keeps a run under the id that is sent with it, and one that was kept is not sent again.
"""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

_ID = "harness.id"
_ODD = re.compile(r"[^\w\-./ ]")
_ODD_IN_PROJECT = re.compile(r"[/\\#?%:]")
_LONGEST_NAME, _LONGEST_PARAM, _LONGEST_TAG = 128, 500, 4000
_WANDB_ID = 32
"""Digits of an id that a folder's name holds."""
_FINISHED = "FINISHED"


def main() -> None:
    """Send what is asked for."""
    folder = Path(sys.argv[1])
    order = json.loads((folder / "order.json").read_text(encoding="utf-8"))
    send = {"mlflow": to_mlflow, "wandb": to_wandb}[order["tracker"]]
    failure = ""
    try:
        send(order["target"], order["project"], order["runs"])
    except Exception as error:  # noqa: BLE001 -- whatever a tracker raises is told, and is all
        failure = f"{type(error).__name__}: {error}"
    (folder / "done.json").write_text(json.dumps({"failure": failure}), encoding="utf-8")


def to_mlflow(target: str, project: str, runs: list[dict[str, Any]]) -> None:
    """Send runs to an MLflow server, or into its folder or database."""
    from mlflow import MlflowClient  # noqa: PLC0415 -- no need of ours
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    client = MlflowClient(tracking_uri=target)
    try:
        experiment = client.create_experiment(project)
    except MlflowException:
        found = client.get_experiment_by_name(project)
        if found is None:
            raise
        experiment = found.experiment_id
    for run in runs:
        _one_to_mlflow(client, experiment, run)


def _one_to_mlflow(client: Any, experiment: str, run: dict[str, Any]) -> None:  # noqa: ANN401
    from mlflow.entities import Metric, Param, RunTag  # noqa: PLC0415

    where = f"tags.`{_ID}` = '{run['id']}'"
    kept = [*client.search_runs([experiment], filter_string=where)]
    tags = {_ID: run["id"], "mlflow.runName": run["name"], **run["tags"]}
    told = [RunTag(_key(name), value[:_LONGEST_TAG]) for name, value in tags.items()]
    if kept and kept[0].info.status == _FINISHED:
        client.log_batch(kept[0].info.run_id, tags=told)
        return
    begun = kept[0] if kept else client.create_run(experiment, run["started_ms"], {_ID: run["id"]})
    number = begun.info.run_id
    at = run["ended_ms"] or begun.info.start_time
    client.log_batch(
        number,
        metrics=[Metric(_key(name), value, at, 0) for name, value in run["metrics"].items()],
        params=[Param(_key(n), value[:_LONGEST_PARAM]) for n, value in run["params"].items()],
        tags=told,
    )
    for file in run["files"]:
        client.log_artifact(number, file)
    client.set_terminated(number, _FINISHED, run["ended_ms"])


def _key(name: str) -> str:
    return _ODD.sub("_", name)


def to_wandb(target: str, project: str, runs: list[dict[str, Any]]) -> None:
    """Write runs into a folder, as Weights & Biases does offline; `wandb sync` sends them later."""
    kept = Path(target) / "wandb"
    kept.mkdir(parents=True, exist_ok=True)
    for run in runs:
        if not any(kept.glob(f"offline-run-*-{run['id'][:_WANDB_ID]}")):
            _one_to_wandb(kept, _ODD_IN_PROJECT.sub("-", project)[:_LONGEST_NAME], run)


def _one_to_wandb(kept: Path, project: str, run: dict[str, Any]) -> None:
    """Write one run; its folder has its name only when it is whole."""
    import wandb  # noqa: PLC0415 -- no need of ours

    partial = kept / f".{run['id'][:_WANDB_ID]}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    settings = wandb.Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        silent=True,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    opened = wandb.init(
        mode="offline",
        dir=str(partial),
        id=run["id"][:_WANDB_ID],
        project=project,
        name=run["name"][:_LONGEST_NAME],
        group=run["group"] or None,
        tags=[run["tags"]["verdict"]],
        config=run["params"] | run["tags"],
        settings=settings,
    )
    opened.log(run["metrics"])
    for file in run["files"]:
        copied = shutil.copy(file, opened.dir)
        opened.save(str(copied), base_path=opened.dir, policy="now")
    opened.finish()
    (written,) = (partial / "wandb").glob("offline-run-*")
    written.rename(kept / written.name)
    shutil.rmtree(partial)


if __name__ == "__main__":
    main()
