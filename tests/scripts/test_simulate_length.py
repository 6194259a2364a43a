from scripts.simulate_length import SHAPES, rates


def test_the_bounds_err_as_seldom_as_they_say_where_students_do_not() -> None:
    ours = rates(SHAPES["one in a hundred runs on"], items=100, draws=400, seed=1)
    assert ours.within <= 0.08
    assert ours.longer <= 0.08
    assert ours.students_within > 0.2
