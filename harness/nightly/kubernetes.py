"""A nightly as Jobs of Kubernetes, one a cell, and one that collects.

A Job a cell, and no Indexed Job: a queue (Kueue) admits the pods of a Job together or not at all,
so that twenty cells of eight GPUs would wait for 160. A pod that is pre-empted or evicted is
started again and continues in its run directory; one that failed is not, for what may be tried
again is `harness nightly`'s own business.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import yaml

from harness.errors import UsageError
from harness.nightly.placing import Placed, Placing, of_equal_needs, refuse_unknown

_SETTINGS = (
    *("image", "claim", "mount", "queue", "namespace", "cpu", "memory", "shared-memory"),
    *("secret", "gpu-resource", "priority-class", "wait"),
)
_IMAGE = re.compile(r"[a-z0-9][a-z0-9._:/-]*@sha256:[0-9a-f]{64}")
_DNS_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
_DURATION = re.compile(r"[0-9]{1,4}[smh]")
_RESOURCE = re.compile(r"[a-z0-9.-]+/[A-Za-z0-9._-]+")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_RULES = {
    "image": (_IMAGE, "an image by digest, such as registry.example/harness@sha256:<64 digits>"),
    "claim": (_DNS_NAME, "the name of a PersistentVolumeClaim"),
    "queue": (_DNS_NAME, "the name of a LocalQueue"),
    "namespace": (_DNS_NAME, "the name of a namespace"),
    "secret": (_DNS_NAME, "the name of a Secret, whose keys become variables"),
    "priority-class": (_DNS_NAME, "the name of a WorkloadPriorityClass"),
    "cpu": (_QUANTITY, "a quantity such as 16"),
    "memory": (_QUANTITY, "a quantity such as 128Gi"),
    "shared-memory": (_QUANTITY, "a quantity such as 16Gi"),
    "wait": (_DURATION, "how long the cells are waited for before they are collected, as 24h"),
    "gpu-resource": (_RESOURCE, "a resource such as nvidia.com/gpu"),
}
_QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
_PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
_PRODUCT_LABEL = "nvidia.com/gpu.product"
_DISRUPTED = {"type": "DisruptionTarget", "status": "True"}
"""Of a pod that was pre-empted, evicted or drained."""
_GRACE_S = 120
"""Between SIGTERM and SIGKILL: servers are stopped and records closed meanwhile."""
_KEPT_S = 7 * 24 * 3600
"""An ended Job is there for a week."""
_LONGEST_NAME = 52
"""Of a Job: its pods' names are 11 longer, and have 63 at most."""
_COLLECT = "collect"


def kubernetes_text(cells: Sequence[Placed], placing: Placing) -> str:
    """Return the Jobs as YAML for `kubectl apply -f`.

    Raises:
        UsageError: a setting is missing or wrong, or a path is not on the volume.
    """
    _check(placing)
    groups = of_equal_needs(cells, placing)
    jobs = [
        _job(placing, cell, gpus=gpus, hardware=hardware)
        for (gpus, hardware), members in groups.items()
        for cell in members
    ]
    jobs.append(_collecting(placing))
    head = f"# The nightly {placing.name} of {placing.night}: {len(cells)} cells, a Job each.\n"
    return head + yaml.safe_dump_all(jobs, sort_keys=False, explicit_start=True, width=1000)


def _job(placing: Placing, cell: Placed, *, gpus: int, hardware: str | None) -> dict[str, Any]:
    arguments = placing.arguments(only=cell.name)
    pod = _pod(placing, arguments, gpus=gpus)
    if hardware is not None:
        pod["nodeSelector"] = {_PRODUCT_LABEL: hardware}
    return _as_job(placing, cell.name, pod, queued=True)


def _collecting(placing: Placing) -> dict[str, Any]:
    """Return the Job that waits for all others; in no queue, where it might wait before them."""
    arguments = [*placing.arguments(), "--wait", placing.settings.get("wait", "24h")]
    return _as_job(placing, _COLLECT, _pod(placing, arguments, gpus=0), queued=False)


def _as_job(placing: Placing, what: str, pod: dict[str, Any], *, queued: bool) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": "harness", "app.kubernetes.io/component": "nightly"}
    labels |= {"nightly.harness/night": placing.night} if _LABEL.fullmatch(placing.night) else {}
    own = dict(labels)
    in_queue = queued and "queue" in placing.settings
    if in_queue:
        own[_QUEUE_LABEL] = placing.settings["queue"]
        if priority := placing.settings.get("priority-class"):
            own[_PRIORITY_LABEL] = priority
    name = _name_of(placing, what, is_cell=queued)
    metadata: dict[str, Any] = {"name": name, "labels": own}
    if namespace := placing.settings.get("namespace"):
        metadata["namespace"] = namespace
    metadata["annotations"] = {"nightly.harness/cell" if queued else "nightly.harness/role": what}
    spec: dict[str, Any] = {
        "suspend": in_queue,  # the queue lets it begin
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [_DISRUPTED]}]},
        "ttlSecondsAfterFinished": _KEPT_S,
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def _pod(placing: Placing, arguments: Sequence[str], *, gpus: int) -> dict[str, Any]:
    settings = placing.settings
    resources: dict[str, Any] = {}
    asked = {name: settings[name] for name in ("cpu", "memory") if name in settings}
    if asked:
        resources["requests"] = asked
    if gpus:
        resources["limits"] = {settings.get("gpu-resource", "nvidia.com/gpu"): gpus}
    shared: dict[str, Any] = {"medium": "Memory"}
    if size := settings.get("shared-memory"):
        shared["sizeLimit"] = size
    container: dict[str, Any] = {
        "name": "harness",
        "image": settings["image"],
        "command": ["harness"],
        "args": [_plain(one) for one in arguments],
        "workingDir": _plain_path(placing),
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": "shared", "mountPath": settings["mount"]},
            {"name": "memory", "mountPath": "/dev/shm"},  # noqa: S108 - between processes
        ],
    }
    if secret := settings.get("secret"):
        container["envFrom"] = [{"secretRef": {"name": secret}}]
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _GRACE_S,
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": [
            {"name": "shared", "persistentVolumeClaim": {"claimName": settings["claim"]}},
            {"name": "memory", "emptyDir": shared},
        ],
    }


def _plain(argument: str) -> str:
    """Return an argument that stays as it is: `$(NAME)` would be replaced by a variable."""
    return argument.replace("$(", "$$(")


def _plain_path(placing: Placing) -> str:
    """Return the folder of the matrix, which the pod sees: that of harness may not be there."""
    return str(placing.matrix.parent)


def _name_of(placing: Placing, what: str, *, is_cell: bool) -> str:
    """Return a name as Jobs may have it, another for every nightly, night and cell."""
    whole = f"{placing.name}-{placing.night}-{what}"
    plain = re.sub(r"[^a-z0-9]+", "-", f"harness-{whole}".lower())
    digest = hashlib.sha256(f"{is_cell}\n{placing.matrix}\n{whole}".encode()).hexdigest()[:8]
    return f"{plain[: _LONGEST_NAME - 9].rstrip('-')}-{digest}"


def _check(placing: Placing) -> None:
    settings = placing.settings
    refuse_unknown(settings, _SETTINGS, "Kubernetes")
    missing = [name for name in ("image", "claim", "mount") if name not in settings]
    if missing:
        what = f"--set {missing[0]}={_RULES[missing[0]][1] if missing[0] in _RULES else '/PATH'}"
        message = f"Kubernetes has to be told {', '.join(missing)}. Type {what!r}."
        raise UsageError(message)
    for key, (rule, what) in _RULES.items():
        if key in settings and not rule.fullmatch(settings[key]):
            message = f"--set '{key}={settings[key]}': it is {what}."
            raise UsageError(message)
    for key, value in settings.items():
        if key.startswith("hardware.") and not _LABEL.fullmatch(value):
            message = f"--set '{key}={value}': it is a value of the nodes' label {_PRODUCT_LABEL}."
            raise UsageError(message)
    _check_mounted(placing)


def _check_mounted(placing: Placing) -> None:
    mount = PurePosixPath(placing.settings["mount"])
    if not mount.is_absolute() or ".." in mount.parts or ":" in str(mount):
        message = f"--set 'mount={mount}': it is a path from the root on, without ':' and '..'."
        raise UsageError(message)
    for path in (placing.matrix, placing.out):
        if not PurePosixPath(path).is_relative_to(mount):
            message = (
                f"'{path}' is not below '{mount}', where the pods have the claim's volume. Mount "
                "it here under the same path, and name the file there."
            )
            raise UsageError(message)
