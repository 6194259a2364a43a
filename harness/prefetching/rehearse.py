"""Load everything from a prefetched folder in a process that can reach nobody."""

import sys
from pathlib import Path

from harness import calibrate, offline, score
from harness.artifacts import Recipe
from harness.errors import PrerequisiteError
from harness.models import open_source
from harness.offline import Manifest
from harness.recipe import load_recipe
from harness.request import Request

REACHING = ("socket.connect", "socket.getaddrinfo", "socket.sendto")


def rehearse(request: Request, folder: Path, manifest: Manifest) -> Recipe:
    """Compare every byte, then load models, calibration texts and data sets as a run does.

    The process makes no connection from now on: whatever tries ends it with the reason.

    Raises:
        PrerequisiteError: a file was changed, or something reaches out for the network.
        UsageError: a part of it cannot be loaded.
    """
    refuse_connections()
    offline.check_bytes(folder, manifest)
    recipe = load_recipe(request)
    for model in manifest.models:
        open_source(model.name, revision=model.revision)
    source = open_source(recipe.model, revision=recipe.revision)
    calibrate.measure_extent(recipe.calibration, source)
    loaded = score.load_data_sets(recipe.suite)
    if (recipe.suite.digest, loaded) != (manifest.suite_digest, manifest.tasks):
        message = (
            f"'{folder}' was filled for suite '{manifest.suite}' ({manifest.suite_digest[:12]}), "
            f"not for this one ({recipe.suite.digest[:12]}). Fill it again with `harness prefetch`."
        )
        raise PrerequisiteError(message)
    return recipe


def refuse_connections() -> None:
    """Let this process, until it ends, ask no name server and connect to nobody."""
    sys.addaudithook(refuse)


def refuse(event: str, arguments: tuple[object, ...]) -> None:
    """Refuse what reaches out for another machine, as Python is about to do it.

    Raises:
        OSError: it does.
    """
    if event in REACHING:
        message = f"the network is not to be used, and {event} asks for {arguments[-1]!r}"
        raise OSError(message)
