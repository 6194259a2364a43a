from scripts.simulate_repeats import Rates, Row, all_rows, breaks, simulate


def test_a_drawn_row_keeps_its_promises() -> None:
    rates = simulate(Row("uniform", 30, 4), seed=0, num_draws=500)
    assert 0.7 < rates.plan < 0.9
    assert abs(rates.go - rates.plan) < 0.07
    assert max(rates.even, rates.few) < 0.09


def test_a_promise_that_is_broken_is_seen() -> None:
    kept = Rates(go=0.81, plan=0.8, even=0.05, few=0.05, student=0.2)
    assert not breaks(kept)
    assert breaks(kept._replace(few=0.061))
    assert breaks(kept._replace(go=0.84))


def test_the_rows_span_what_is_promised() -> None:
    items, repeats = {row.items for row in all_rows()}, {row.repeats for row in all_rows()}
    assert (min(items), max(items)) == (30, 1000)
    assert (min(repeats), max(repeats)) == (1, 64)
