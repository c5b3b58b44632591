import math

import pytest
from tests.report import runs

from attar._src.report.story import read_story
from attar._src.report.verdict import noise, verdict


def test_the_sentence_says_size_quality_and_speed(tmp_path):
    story = read_story(runs.demo(tmp_path))
    size = (tmp_path / "student.attar").stat().st_size
    assert verdict(story) == (
        f"student is {story.main.times_smaller:.1f}× smaller as a whole file ({size:,} bytes) than the FP32 weights of "
        "teacher, is 0.7 points less accurate on the test set (97.88 % against 98.60 %, mean of 3 seeds) and answers "
        "4.96× faster (0.083 ms against 0.412 ms)."
    )


def test_a_collapsed_class_is_in_the_sentence(tmp_path):
    assert verdict(read_story(runs.demo(tmp_path, collapsed=True))).endswith(", but 1 class has collapsed.")


@pytest.mark.parametrize(
    ("mine", "words"),
    [(0.9, "is as accurate"), (0.91, "is 1.0 point more accurate"), (0.8, "is 10.0 points less accurate")],
)
def test_accuracies_are_compared_in_points(tmp_path, mine, words):
    models = [{"metric_mean": 0.9}, {"metric_mean": mine, "metric_per_seed": [mine]}]
    said = verdict(read_story(runs.small(tmp_path, models=models)))
    assert words in said
    assert "seeds" not in said


def test_of_another_metric_only_the_figures_are_said(tmp_path):
    models = [{"metric_mean": 0.5}, {"metric_mean": 0.25, "metric_per_seed": [0.25]}]
    story = read_story(runs.small(tmp_path, models=models, metric="mean_squared_error"))
    assert "has a test mean_squared_error of 0.25 against 0.5" in verdict(story)
    assert noise(story) is None


@pytest.mark.parametrize(("faster", "words"), [(1.04, "about as fast"), (2.0, "2.00× faster"), (0.5, "2.00× slower")])
def test_speeds_are_compared_where_they_differ(tmp_path, faster, words):
    assert words in verdict(read_story(runs.small(tmp_path, models=[{}, {"times_faster": faster}])))


def test_what_was_not_measured_is_not_claimed(tmp_path):
    bare = {"metric_mean": None, "metric_per_seed": [], "latency": None}
    said = verdict(read_story(runs.small(tmp_path, models=[{}, bare])))
    assert "accura" not in said
    assert "fast" not in said


def test_a_file_larger_than_the_weights_is_called_larger(tmp_path):
    few = {"fc": (2, 4)}
    assert "larger as a whole file" in verdict(read_story(runs.small(tmp_path, models=[{}, {}], shapes=few)))


def test_one_model_is_held_against_its_own_weights(tmp_path):
    wide = {"fc": (10, 400)}
    assert verdict(read_story(runs.small(tmp_path, shapes=wide))).startswith(
        "a takes 16.2 KB; its weights in FP32 alone"
    )
    rng_student = runs.small(tmp_path / "b", models=[{}, {}], shapes=wide)
    told = read_story(rng_student).run.models[1]
    only = runs.put(tmp_path / "b", runs.run([told.model_dump(mode="json")]))
    said = verdict(read_story(only))
    assert "less than its weights in FP32, reaches a test accuracy of 89.00 % on 359 test examples and" in said


def test_noise_is_two_standard_errors_of_a_difference(tmp_path):
    story = read_story(runs.small(tmp_path, models=[{"metric_mean": 0.9}, {"metric_mean": 0.8}], examples=100))
    assert noise(story) == pytest.approx(2 * math.sqrt((0.09 + 0.16) / 100))


def test_there_is_no_noise_to_speak_of_without_examples_or_with_one_model(tmp_path):
    assert noise(read_story(runs.small(tmp_path, models=[{}, {}], examples=None))) is None
    assert noise(read_story(runs.small(tmp_path))) is None
