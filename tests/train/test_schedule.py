import pytest

from attar._src.train.schedule import Schedule, value_at


def test_a_number_is_itself():
    assert value_at(0.3, 0.9) == 0.3


@pytest.mark.parametrize(("shape", "middle"), [("linear", 0.5), ("cosine", 0.5), ("cubic", 0.875)])
def test_the_ends_and_the_middle_of_a_schedule(shape, middle):
    schedule = Schedule(start=1.0, stop=3.0, shape=shape, begin=0.2, end=0.6)
    assert [schedule.at(p) for p in (0, 0.2, 0.6, 1)] == [1, 1, 3, 3]
    assert schedule.at(0.4) == pytest.approx(1 + 2 * middle)


def test_a_step_where_begin_is_end():
    schedule = Schedule(start=0.0, stop=1.0, begin=0.5, end=0.5)
    assert [schedule.at(p) for p in (0.49, 0.5)] == [0, 1]
