from scripts.simulate_perplexity import KINDS, Cell, cells, is_broken, simulate


def test_what_is_promised_of_a_perplexity_holds_on_documents_of_unequal_lengths() -> None:
    for row, kind in enumerate(("normal", "long tail of losses")):
        cell = Cell(40, 0.7, kind, 600)
        rates = simulate(cell, row=row)
        assert not is_broken(cell, rates)
        assert kind != "normal" or abs(rates.go - rates.plan) < 0.08


def test_a_broken_promise_is_seen() -> None:
    cell = Cell(40, 0.7, "normal", 2000)
    rates = simulate(cell._replace(draws=10), row=0)
    assert is_broken(cell, rates._replace(false_go=0.09))
    assert not is_broken(cell, rates._replace(false_go=0.06))
    assert not is_broken(cell._replace(kind="rare losses"), rates._replace(false_go=0.5))


def test_every_kind_is_simulated_from_the_fewest_documents_on() -> None:
    assert {cell.kind for cell in cells() if cell.documents == 10} == set(KINDS)
