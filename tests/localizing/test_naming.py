"""Which stage is named follows from the first hop that parts, and from the clues there."""

from dataclasses import replace

from harness.artifacts import Clue, Hop, OriginStage
from harness.localizing.hops import DEPLOYED, EMULATED, FILES, QUANTIZED, RECORDED, SOURCE, Step
from harness.localizing.verdict import Evidence, grouped, named

EXPORTED = Clue(stage=OriginStage.EXPORT, subject="a.0.b", message="a.0.b is off")
MEASURED = Clue(stage=OriginStage.CALIBRATION, subject="range", message="range is off")


def hop_of(step: Step, difference: float = 0.0, *, parted: bool = False) -> Hop:
    return Hop(
        name=step.name, what=step.what, stages=step.stages, difference=difference, parted=parted
    )


RIGHT = [hop_of(step) for step in (SOURCE, QUANTIZED, RECORDED, FILES, EMULATED, DEPLOYED)]


def with_parted(*steps: Step) -> list[Hop]:
    names = {step.name for step in steps}
    return [
        replace(hop, parted=True, difference=0.5) if hop.name in names else hop for hop in RIGHT
    ]


def stage(hops: list[Hop], *clues: Clue, is_compared: bool = True) -> OriginStage | None:
    return named(Evidence(hops, clues, "NO-GO", is_compared))[0]


def test_a_deployment_that_parts_from_its_emulation_is_the_kernel() -> None:
    assert stage(with_parted(DEPLOYED)) is OriginStage.KERNEL


def test_an_emulation_that_parts_from_the_reference_is_the_loader() -> None:
    assert stage(with_parted(EMULATED)) is OriginStage.LOADER


def test_of_several_hops_that_part_the_first_decides() -> None:
    assert stage(with_parted(EMULATED, DEPLOYED)) is OriginStage.LOADER


def test_files_that_are_off_explain_a_server_that_parts() -> None:
    assert stage(with_parted(EMULATED), EXPORTED) is OriginStage.EXPORT


def test_a_clue_of_a_stage_before_the_hop_that_parts_does_not_explain_it() -> None:
    assert stage(with_parted(FILES), MEASURED, EXPORTED) is OriginStage.EXPORT


def test_where_nothing_parts_the_first_stage_with_a_sure_clue_is_named() -> None:
    assert stage(RIGHT, MEASURED, EXPORTED) is OriginStage.CALIBRATION


def test_a_suspicion_names_nothing_where_nothing_parts() -> None:
    assert stage(RIGHT, replace(MEASURED, decisive=False)) is None


def test_a_suspicion_explains_answers_that_part_there() -> None:
    suspicion = replace(MEASURED, decisive=False)
    assert stage(with_parted(RECORDED), suspicion) is OriginStage.CALIBRATION


def test_a_loader_is_not_blamed_for_files_that_nobody_looked_at() -> None:
    assert stage(with_parted(FILES), is_compared=False) is None


def test_a_loader_is_told_on_the_same_files_whatever_they_are() -> None:
    assert stage(with_parted(EMULATED), is_compared=False) is OriginStage.LOADER


def test_without_the_emulation_a_kernel_is_not_told_from_a_loader() -> None:
    hops = [replace(hop, looked=hop.name != "emulated") for hop in with_parted(DEPLOYED)]
    assert stage(hops) is None


def test_clues_that_differ_in_numbers_alone_are_one() -> None:
    others = [replace(EXPORTED, subject=f"a.{number}.b") for number in range(3)]
    (one,) = grouped(others)
    assert one.count == 3


def test_of_clues_alike_that_of_the_layer_that_parts_is_shown() -> None:
    others = [replace(EXPORTED, subject=f"a.{number}.b") for number in range(3)]
    (one,) = grouped(others, frozenset({"a.2"}))
    assert one.subject == "a.2.b"
