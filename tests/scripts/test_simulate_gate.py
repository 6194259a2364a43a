from scripts.simulate_gate import Cell, Rates, cells, differs_from_plan, simulate, task_of


def test_drawn_candidates_pass_as_often_as_planned() -> None:
    plain, kept = (
        task_of(200, 0.05, margin=m, recovery=r) for m, r in ((0.05, None), (None, 0.95))
    )
    for row, task in enumerate((plain, kept)):
        cell = Cell("any", task, 0.0, 100)
        rates = simulate(cell, row=row)
        assert rates.plan is not None
        assert 0.5 < rates.plan < 1
        assert not differs_from_plan(cell, rates)


def test_a_plan_that_is_ten_points_off_is_seen() -> None:
    cell = Cell("any", task_of(300, 0.05), 0.0, 1000)
    assert differs_from_plan(cell, Rates(go=0.8, no_go=0.0, plan=0.9))
    assert not differs_from_plan(cell, Rates(go=0.89, no_go=0.0, plan=0.9))
    assert not differs_from_plan(cell, Rates(go=0.1, no_go=0.0, plan=None))


def test_every_form_is_simulated_with_and_without_a_loss_that_must_not_pass() -> None:
    for form in ("margin", "lossless", "recovery", "14 clusters", "values"):
        drops = [cell.drop - cell.limit for cell in cells() if cell.form == form]
        assert min(drops) < 0 <= max(drops) + 1e-12
