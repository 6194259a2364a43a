"""What a container is started with: a pure function of what is served and where.

Nothing of this machine is in reach of the server but what it needs: the checkpoint and the plugin
read-only, and one folder for its load reports. It has no capabilities, cannot gain any, runs as
an ordinary user on a read-only root, and sees none of harness's environment variables.

Which network: where the daemon has its default bridge, the server's port is published on
127.0.0.1 alone, the daemon picks a free one. Where it has none (`dockerd --bridge=none`), the
container shares the host's network and the server itself listens on 127.0.0.1 alone.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from docker.types import DeviceRequest, LogConfig, Mount

from harness.errors import PrerequisiteError
from harness.serve.vllm.arguments import MODULE, PLUGIN, Setting, api_server, own_variables

CHECKPOINT = "/harness/checkpoint"
RECORDS = "/harness/records"
PLUGIN_INSIDE = "/harness/plugin"
PORT_INSIDE = 8000
LOCALHOST = "127.0.0.1"
ALL_GPUS = ("all",)
_EVERYWHERE = "0.0.0.0"  # noqa: S104 -- inside a container's own network, published on 127.0.0.1
_NOBODY = 65534
_SHARED_MEMORY_BYTES = 8 << 30
"""Workers talk through it; memory is taken only as it is used."""
_LOG_BYTES_KEPT = "100m"


@dataclass(frozen=True, kw_only=True, slots=True)
class Bind:
    """A file or folder of the host that a container sees."""

    source: str
    target: str
    read_only: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """How the server is reached from this machine, and from here alone."""

    published: bool
    """Whether the container has a network of its own and its port is published."""
    port: int
    """That the server listens on, as it sees it."""

    @property
    def host(self) -> str:
        """Return the address that the server binds."""
        return _EVERYWHERE if self.published else LOCALHOST


@dataclass(frozen=True, kw_only=True, slots=True)
class User:
    """Numeric user and group."""

    uid: int
    gid: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Container:
    """Everything that a container is created with."""

    image: str
    """By id."""
    command: tuple[str, ...]
    """All of it: the image's own entry point is not used."""
    environment: Mapping[str, str] = field(repr=False)
    """Holds the key of the server."""
    binds: tuple[Bind, ...]
    network: Network | None
    """None: no network at all."""
    user: User
    gpus: tuple[str, ...]
    """Device ids or `all`; none without."""
    labels: Mapping[str, str]

    def options(self) -> dict[str, object]:
        """Return the arguments of the SDK's `containers.create`."""
        options: dict[str, object] = {
            "image": self.image,
            "entrypoint": list(self.command[:1]),
            "command": list(self.command[1:]),
            "environment": dict(self.environment),
            "mounts": [
                Mount(type="bind", source=b.source, target=b.target, read_only=b.read_only)
                for b in self.binds
            ],
            "labels": dict(self.labels),
            "user": f"{self.user.uid}:{self.user.gid}",
            "working_dir": "/tmp",  # noqa: S108 -- the container's own
            "read_only": True,
            # Compilers put shared objects there and load them: docker's default forbids that.
            "tmpfs": {"/tmp": "rw,exec,nosuid,nodev,mode=1777"},  # noqa: S108 -- the same
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "shm_size": _SHARED_MEMORY_BYTES,
            # Asked for by name: a daemon may be set up to send logs where they cannot be read.
            "log_config": LogConfig(type="json-file", config={"max-size": _LOG_BYTES_KEPT}),
            "healthcheck": {"test": ["NONE"]},  # harness asks itself, and sooner
            "detach": True,
        }
        if self.network is None:
            options["network_mode"] = "none"
        elif self.network.published:
            # An empty host port lets the daemon choose a free one.
            options["ports"] = {f"{self.network.port}/tcp": (LOCALHOST, None)}
        else:
            options["network_mode"] = "host"
        if self.gpus:
            ids = {"count": -1} if self.gpus == ALL_GPUS else {"device_ids": list(self.gpus)}
            options["device_requests"] = [DeviceRequest(capabilities=[["gpu"]], **ids)]
        return options


@dataclass(frozen=True, kw_only=True, slots=True)
class ContainerSettings:
    """What a server's container depends on beside what is served."""

    image: str
    network: Network
    user: User
    records: Path
    """Folder that the container may write its load reports to."""
    labels: Mapping[str, str]
    key: str = field(repr=False)
    """API key that requests must bring."""
    gpus: tuple[str, ...] = ()


def server_container(
    setting: Setting, flags: tuple[str, ...], site: ContainerSettings
) -> Container:
    """Return the container that serves `setting` with the server's `flags`.

    Raises:
        PrerequisiteError: the container's user may not read the checkpoint.
    """
    folder = setting.source.path
    refuse_unreadable(folder, site.user)
    place = api_server(flags, model=CHECKPOINT, host=site.network.host, port=site.network.port)
    return Container(
        image=site.image,
        command=("python3", "-m", MODULE, *place),
        environment={
            **own_variables(
                setting.surrounded, plugin=PLUGIN_INSIDE, records=RECORDS, key=site.key
            ),
            # Any number may be the user's: torch asks for names and homes, and finds none.
            "HOME": "/tmp/home",  # noqa: S108 -- the container's own
            "USER": "harness",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        binds=(
            *checkpoint_binds(folder),
            Bind(source=str(PLUGIN), target=PLUGIN_INSIDE),
            Bind(source=str(site.records), target=RECORDS, read_only=False),
        ),
        network=site.network,
        user=site.user,
        gpus=site.gpus,
        labels=site.labels,
    )


def checkpoint_binds(folder: Path) -> tuple[Bind, ...]:
    """Return what makes `folder` visible; links that lead out of it are followed here.

    The Hub's cache is made of such links, and inside a container they would lead nowhere: there
    each file is bound by itself.
    """
    root = folder.resolve()
    files = sorted(path for path in root.rglob("*") if path.is_file())
    if all(path.resolve().is_relative_to(root) for path in files):
        return (Bind(source=str(root), target=CHECKPOINT),)
    return tuple(
        Bind(source=str(path.resolve()), target=f"{CHECKPOINT}/{path.relative_to(root)}")
        for path in files
    )


def container_user() -> User:
    """Return who runs harness, so that files belong to them; nobody where that is root."""
    uid, gid = os.getuid(), os.getgid()
    return User(uid=uid, gid=gid) if uid else User(uid=_NOBODY, gid=_NOBODY)


def refuse_unreadable(folder: Path, user: User) -> None:
    """Refuse a checkpoint that the container's user cannot read.

    Raises:
        PrerequisiteError: with the command that would change it.
    """
    if user.uid == os.getuid():
        return  # harness itself has read it
    for path in (folder, *folder.rglob("*")):
        facts = path.stat()
        shift = 6 if facts.st_uid == user.uid else 3 if facts.st_gid == user.gid else 0
        needed = 5 if path.is_dir() else 4
        if facts.st_mode >> shift & needed != needed:
            message = (
                f"'{path}' cannot be read by user {user.uid}, as which the container runs because "
                f"harness runs as root. Type chmod -R a+rX '{folder}', or run harness as its owner."
            )
            raise PrerequisiteError(message)


def requested_gpus(platform: str, gpus: tuple[int, ...] | None) -> tuple[str, ...]:
    """Return the devices to ask the daemon for: none for a CPU build, else those or all."""
    if platform != "cuda":
        return ()
    if gpus is not None:
        return tuple(map(str, gpus))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return tuple(filter(None, visible.split(","))) if visible else ALL_GPUS
