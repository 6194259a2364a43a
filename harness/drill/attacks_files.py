"""Attacks that exchange or rewrite a checkpoint's files around the stages that look at them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.artifacts import Decision, EngineSpec
from harness.drill.attack import Attacks, Tamper, forget
from harness.drill.attempt import MODEL
from harness.drill.making import exchanged
from harness.drill.sandbox import (
    Ending,
    Sandbox,
    exchange,
    rewrite,
    with_times_of,
)
from harness.models import digest_folder
from harness.serve import in_process, reference
from harness.stages import (
    CANDIDATE,
    CHECKPOINT_FOLDER,
    SMOKE,
    VERIFY,
)


def _exchanged_between(first: Any, last: Any) -> Tamper:  # noqa: ANN401 - stages of any noun
    """Let a bad checkpoint lie in the good one's place from before one stage to after another."""

    def tamper(sandbox: Sandbox) -> Ending:
        run, bad = sandbox.finished(), sandbox.bad()
        forget(run, VERIFY, SMOKE, CANDIDATE)
        checkpoint = run / CHECKPOINT_FOLDER

        def strike() -> None:
            exchange(checkpoint, bad)

        return sandbox.again(run, before={first: strike}, after={last: strike})

    return tamper


def _rewritten_before(stage: Any) -> Tamper:  # noqa: ANN401 - stage of any noun
    def tamper(sandbox: Sandbox) -> Ending:
        run, bad = sandbox.finished(), sandbox.bad()
        forget(run, SMOKE, CANDIDATE)
        return sandbox.again(run, before={stage: lambda: rewrite(run / CHECKPOINT_FOLDER, bad)})

    return tamper


attack = Attacks()


attack(
    "a bad checkpoint is made, and a good one lies in its place while it is verified",
    "evidence-changed .*exchanged while it was verified",
    name="exchanged-while-verified",
)(_exchanged_between(VERIFY, VERIFY))


attack(
    "a bad checkpoint lies there after verify and is put back before the judge",
    "evidence-changed .*exchanged before it was smoked",
    name="exchanged-while-served",
)(_exchanged_between(SMOKE, CANDIDATE))


attack(
    "a good checkpoint is verified and smoked, and a bad one scored in its place",
    "evidence-changed .*exchanged before it was scored",
    name="exchanged-while-scored",
)(_exchanged_between(CANDIDATE, CANDIDATE))


@attack(
    "another checkpoint lies there only while the engine reads it",
    "evidence-changed .*exchanged and put back, while it was loaded",
)
def _put_back_while_loaded(sandbox: Sandbox) -> Ending:
    """Let the bad checkpoint lie there only while the engine reads it."""
    run, bad = sandbox.finished(), sandbox.bad()
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

    with exchanged(in_process, "serve_reference", serve_another):
        return sandbox.again(run)


attack(
    "the weights are rewritten in place after they were verified, sizes and times kept",
    "evidence-changed .*before it was smoked",
    name="rewritten-after-verify",
)(_rewritten_before(SMOKE))


@attack(
    "the weights are rewritten in place before the judge, sizes and times kept",
    "evidence-changed .*as exported .*on the disk",
)
def _rewritten_after_scoring(sandbox: Sandbox) -> Ending:
    run, bad = sandbox.finished(), sandbox.bad()
    return sandbox.again(run, after={CANDIDATE: lambda: rewrite(run / CHECKPOINT_FOLDER, bad)})


@attack(
    "a bad checkpoint of equal sizes and times is unpacked where a good one got GO", "smoke-failed"
)
def _unpacked_with_anothers_times(sandbox: Sandbox) -> Ending:
    """Unpack a bad checkpoint in a good one's place, of the same sizes and times."""
    place, bad, run = sandbox.good("place"), sandbox.bad(), sandbox.folder / "run"
    first = sandbox.gate(place, MODEL, run)
    if first.decision is not Decision.GO:
        return first._replace(message=f"the good checkpoint got no GO: {first.message}")
    with_times_of(bad, place)
    exchange(place, bad)
    return sandbox.gate(place, MODEL, run)


@attack(
    "the weights are rewritten after GO, times kept; status and report are asked",
    "evidence-changed .*is not the one that was judged",
)
def _weights_changed_since(sandbox: Sandbox) -> Ending:
    run, bad = sandbox.finished(), sandbox.bad()
    rewrite(run / CHECKPOINT_FOLDER, bad)
    return sandbox.looked_at(run)


ATTACKS = tuple(attack.declared)
