"""Ways that exchange or rewrite a checkpoint's files around the stages that look at them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.artifacts import Decision, EngineSpec
from harness.drill.making import exchanged
from harness.drill.scene import (
    Ending,
    Scene,
    exchange,
    rewrite,
    with_times_of,
)
from harness.drill.way import MODEL, Way, forget
from harness.models import digest_folder
from harness.serve import engines, reference
from harness.stages import (
    BASELINE,
    CANDIDATE,
    CHECKPOINT_FOLDER,
    SMOKE,
    VERIFY,
)


def _exchanged_between(first: Any, second: Any) -> Callable[[Scene], Ending]:  # noqa: ANN401 - stages of any noun
    """Let a bad checkpoint lie in the good one's place from before one stage to before another."""

    def way(scene: Scene) -> Ending:
        run, bad = scene.finished(), scene.bad()
        forget(run, VERIFY, SMOKE, CANDIDATE)
        checkpoint = run / CHECKPOINT_FOLDER

        def strike() -> None:
            exchange(checkpoint, bad)

        return scene.again(run, before={first: strike, second: strike})

    return way


def _put_back_while_loaded(scene: Scene) -> Ending:
    """Let the bad checkpoint lie there only while the engine reads it."""
    run, bad = scene.finished(), scene.bad()
    forget(run, SMOKE, CANDIDATE)
    checkpoint = run / CHECKPOINT_FOLDER
    read = reference.serve_reference

    @contextmanager
    def serve_another(engine: EngineSpec, directory: Path) -> Iterator[Any]:
        if directory != checkpoint:
            with read(engine, directory) as served:
                yield served
            return
        exchange(checkpoint, bad)
        with read(engine, directory) as served:
            exchange(checkpoint, bad)
            digest = digest_folder(checkpoint)
            shown = replace(served.deployment, checkpoint_digest=digest)
            yield served._replace(deployment=shown)

    with exchanged(engines, "serve_reference", serve_another):
        return scene.again(run)


def _rewritten_before(stage: Any) -> Callable[[Scene], Ending]:  # noqa: ANN401 - stage of any noun
    def way(scene: Scene) -> Ending:
        run, bad = scene.finished(), scene.bad()
        forget(run, SMOKE, CANDIDATE)
        return scene.again(run, before={stage: lambda: rewrite(run / CHECKPOINT_FOLDER, bad)})

    return way


def _rewritten_after_scoring(scene: Scene) -> Ending:
    run, bad = scene.finished(), scene.bad()
    return scene.again(run, after={CANDIDATE: lambda: rewrite(run / CHECKPOINT_FOLDER, bad)})


def _with_anothers_times(scene: Scene) -> Ending:
    """Unpack a bad checkpoint in a good one's place, of the same sizes and times."""
    place, bad, run = scene.good("place"), scene.bad(), scene.folder / "run"
    first = scene.gate(place, MODEL, run)
    if first.decision is not Decision.GO:
        return first._replace(message=f"the good checkpoint got no GO: {first.message}")
    with_times_of(bad, place)
    exchange(place, bad)
    return scene.gate(place, MODEL, run)


def _weights_changed_since(scene: Scene) -> Ending:
    run, bad = scene.finished(), scene.bad()
    rewrite(run / CHECKPOINT_FOLDER, bad)
    return scene.looked_at(run)


WAYS: tuple[Way, ...] = (
    Way(
        name="exchanged-while-verified",
        what="a bad checkpoint is made, and a good one lies in its place while it is verified",
        go=_exchanged_between(VERIFY, SMOKE),
        cause="evidence-changed .*exchanged while it was verified",
    ),
    Way(
        name="exchanged-while-served",
        what="a bad checkpoint lies there after verify and is put back before the judge",
        go=_exchanged_between(SMOKE, BASELINE),
        cause="evidence-changed .*exchanged before it was smoked",
    ),
    Way(
        name="exchanged-while-scored",
        what="a good checkpoint is verified and smoked, and a bad one scored in its place",
        go=_exchanged_between(CANDIDATE, BASELINE),
        cause="evidence-changed .*exchanged before it was scored",
    ),
    Way(
        name="put-back-while-loaded",
        what="another checkpoint lies there only while the engine reads it",
        go=_put_back_while_loaded,
        cause="evidence-changed .*exchanged and put back, while it was loaded",
    ),
    Way(
        name="rewritten-after-verify",
        what="the weights are rewritten in place after they were verified, sizes and times kept",
        go=_rewritten_before(SMOKE),
        cause="evidence-changed .*before it was smoked",
    ),
    Way(
        name="rewritten-after-scoring",
        what="the weights are rewritten in place before the judge, sizes and times kept",
        go=_rewritten_after_scoring,
        cause="evidence-changed .*as exported .*on the disk",
    ),
    Way(
        name="unpacked-with-anothers-times",
        what="a bad checkpoint of equal sizes and times is unpacked where a good one got GO",
        go=_with_anothers_times,
        cause="smoke-failed",
    ),
    Way(
        name="weights-changed-since",
        what="the weights are rewritten after GO, times kept; status and report are asked",
        go=_weights_changed_since,
        cause="evidence-changed .*is not the one that was judged",
    ),
)
