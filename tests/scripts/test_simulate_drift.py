"""What the simulation of drift prints follows from the nights that it draws."""

from scripts.simulate_drift import Rates, Row, breaks, simulate, simulate_measure


def test_a_cell_whose_answers_never_change_raises_nothing() -> None:
    rates = simulate(Row(300, 0.0, 0.0), seed=1, num_draws=5)
    assert (rates.loss, rates.drift, rates.told) == (0.0, 0.0, 0.0)


def test_a_cell_that_loses_slowly_is_found_by_both_tests_and_told() -> None:
    rates = simulate(Row(1_000, 0.01, 0.0, slow=0.003), seed=2, num_draws=10)
    assert (rates.loss, rates.drift, rates.either) == (1.0, 1.0, 1.0)
    assert rates.told >= 0.8
    assert 2 <= (rates.median or 0) <= 10


def test_a_sudden_loss_is_found_in_the_first_night() -> None:
    assert simulate(Row(1_000, 0.0, 0.0, sudden=0.05), seed=3, num_draws=5).most == 1


def test_a_speed_that_falls_is_found() -> None:
    assert simulate_measure(0.02, seed=4, num_draws=5).drift == 1.0


def test_a_quiet_row_that_is_told_too_often_breaks_the_promise() -> None:
    rates = Rates(loss=0.0, drift=0.0, either=0.0, told=0.2, median=None, most=None)
    assert breaks(Row(300, 0.0, 0.0), rates)
    assert not breaks(Row(300, 0.0, 0.0, slow=0.003), rates)
