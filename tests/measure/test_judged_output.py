import numpy as np
import pytest
from tests.runtime.reference import file_of, node

from attar._src.core.errors import DataError
from attar._src.measure.judged_output import judged_output
from attar._src.runtime.session import Session


def test_a_short_batch_is_filled_up_and_cut_again():
    graph = [node("Neg", "x", "y")]
    fixed = Session(file_of(graph, {}, x=(4, 3), y=(4, 3)))
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(judged_output(fixed, [x]), -x)


def test_an_open_batch_is_taken_as_it_is():
    session = Session(file_of([node("Neg", "x", "y")], {}, x=("batch", 3), y=("batch", 3)))
    assert judged_output(session, [np.zeros((5, 3), np.float32)]).shape == (5, 3)


def test_what_is_not_finite_is_refused():
    session = Session(file_of([node("Log", "x", "y")], {}, x=("batch", 3), y=("batch", 3)))
    with pytest.raises(DataError, match="output 'y' is not finite"):
        judged_output(session, [np.zeros((1, 3), np.float32)])
    with pytest.raises(DataError):
        judged_output(session, [np.zeros((1, 4), np.float32)])


def test_another_number_of_inputs_than_the_file_takes_is_refused_by_name():
    session = Session(file_of([node("Neg", "x", "y")], {}, x=("batch", 3), y=("batch", 3)))
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(DataError, match=r"takes the inputs \['x'\], the data has 2 an example"):
        judged_output(session, [x, x])
