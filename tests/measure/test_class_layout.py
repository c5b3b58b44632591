"""The class axis that shapes of outputs and labels tell, and what is refused."""

import pytest

from attar._src.core.errors import SpecError
from attar._src.measure.class_layout import ClassLayout, same_but_ones, usual_axis


@pytest.mark.parametrize(
    ("outputs", "targets", "axis"),
    [
        ((8, 10), (8,), 1),
        ((8, 10), None, 1),
        ((8, 1), (8,), 1),
        ((8, 30, 5), (8, 30), 2),
        ((8, 5, 30), (8, 30), 1),
        ((8, 19, 64, 32), (8, 64, 32), 1),
        ((8, 64, 32, 19), (8, 64, 32), 3),
        ((8, 1, 64, 32), (8, 64, 32), 1),
        ((2, 4, 8, 8, 9), (2, 8, 8, 9), 1),
        ((1, 5, 1), (1, 1), 1),
    ],
)
def test_labels_lack_the_class_axis(outputs, targets, axis):
    layout = ClassLayout()
    assert layout.axis_of(outputs, targets) == axis
    assert layout.settled(outputs, targets) == ClassLayout(axis)


@pytest.mark.parametrize(
    ("outputs", "targets", "message"),
    [
        ((8, 5, 5), (8, 5), r"do not tell .* class_axis to 1 or 2"),
        ((8, 4, 4, 4), (8, 4, 4), r"class_axis to 1 or 2 or 3"),
        ((8, 30, 5), None, r"\(8, 30, 5\) without labels do not tell"),
        ((8, 30, 5), (8,), r"targets \(8,\) do not tell"),
        ((8, 5), (8, 5), r"a target for each output.*binary_kl.*class_axis"),
        ((8,), (8,), "have no class axis"),
        ((8,), None, "have no class axis"),
    ],
)
def test_shapes_that_do_not_tell_are_refused_with_the_line_to_write(outputs, targets, message):
    layout = ClassLayout()
    assert layout.settled(outputs, targets) == layout
    with pytest.raises(SpecError, match=message):
        layout.axis_of(outputs, targets)


def test_a_given_axis_is_used_and_counts_from_the_end():
    assert ClassLayout(1).axis_of((8, 5, 5), (8, 5)) == ClassLayout(-2).axis_of((8, 5, 5), (8, 5)) == 1
    assert ClassLayout(-1).axis_of((8, 30, 5), None) == 2
    assert ClassLayout(1).settled((8, 30, 5), (8, 30)) == ClassLayout(1)
    for axis in (0, 3, -3, 7):
        with pytest.raises(SpecError, match=f"class_axis is {axis}, but outputs .* have the axes 1 to 2"):
            ClassLayout(axis).axis_of((8, 5, 5), (8, 5))


def test_an_axis_once_settled_holds_for_batches_of_other_lengths():
    """A batch of sentences of five words is no reason to take words for the five classes."""
    settled = ClassLayout().settled((8, 5, 30), (8, 30))
    assert settled.axis_of((8, 5, 5), (8, 5)) == 1


@pytest.mark.parametrize(
    ("outputs", "targets", "binary"),
    [
        ((8,), (8,), True),
        ((8, 1), (8,), True),
        ((8, 1), (8, 1), True),
        ((8, 1), None, True),
        ((8, 5), (8, 5), True),
        ((8, 1, 6, 7), (8, 6, 7), True),
        ((8, 1, 6, 7), (8, 1, 6, 7), True),
        ((8, 5), (8,), False),
        ((8, 5), None, False),
        ((8, 5, 6, 7), (8, 6, 7), False),
        ((8, 1, 5), (8, 1), False),
        ((8, 6, 7), None, False),
    ],
)
def test_one_output_or_a_target_for_each_means_yes_or_no(outputs, targets, binary):
    assert ClassLayout().is_binary(outputs, targets) == binary


def test_a_given_axis_of_classes_is_not_binary():
    assert not ClassLayout(1).is_binary((8, 5), (8, 5))
    assert ClassLayout(1).is_binary((8, 1, 6, 7), None)


def test_axes_of_length_one_do_not_count_but_the_first():
    assert same_but_ones((8, 1, 5), (8, 5))
    assert same_but_ones((1, 1), (1,))
    assert not same_but_ones((3, 4), (4, 3))
    assert not same_but_ones((1, 8), (8, 1))
    assert (usual_axis(2), usual_axis(3), usual_axis(4)) == (-1, -1, 1)
