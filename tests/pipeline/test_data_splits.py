"""What a recipe is trained and judged on: words, factories, arrays, loaders; what is held out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from attar._src.core.errors import DataError, SpecError
from attar._src.core.registry import references_from
from attar._src.data.registry import load_dataset
from attar._src.pipeline.data_splits import load_splits
from attar._src.pipeline.loader_checks import loader_digest
from attar._src.pipeline.results import labelled_batches
from attar._src.recipe.recipe import DataSpec
from attar._src.train.feed import ArrayFeed, LoaderFeed


def sets(source, folder=Path(), **more):
    with references_from(folder):
        return load_splits(DataSpec(source=source, **more), folder, task=None, metric="accuracy")


def arrays(n=40, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 3)).astype(np.float32), np.arange(n) % 4


def both(**more):
    return {"train": arrays(40), "test": arrays(12, 1), **more}


def test_a_word_brings_its_preprocessing_and_class_names():
    found = sets("digits")
    assert found.name == "digits"
    assert found.use.preprocessing.name == "digits"
    assert len(found.use.class_names) == 10
    assert found.use.task == "classification"
    assert found.test.examples == len(load_dataset("digits", "test"))


def test_validation_is_held_out_of_train_evenly_by_class():
    found = sets("digits")
    whole = load_dataset("digits", "train")
    assert found.train.examples + found.validation.examples == len(whole)
    assert found.validation.examples == round(0.1 * len(whole))
    counts = np.bincount(found.validation.targets)
    assert counts.max() - counts.min() <= 2
    rows = {row.tobytes() for row in found.validation.inputs[0]}
    assert sum(row.tobytes() in rows for row in found.train.inputs[0]) <= sum(
        np.array_equal(a, b) for a, b in zip(whole.x[1:], whole.x[:-1], strict=True)
    )


def test_the_same_seed_holds_out_the_same():
    one, same, other = (sets(both(), validation=0.2, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.validation.inputs[0], same.validation.inputs[0])
    assert not np.array_equal(one.validation.inputs[0], other.validation.inputs[0])
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()


@pytest.mark.parametrize("share", [0, 0.0])
def test_nothing_is_held_out_where_that_is_asked(share):
    found = sets(both(), validation=share)
    assert found.validation is None
    assert found.train.examples == 40


def test_a_mapping_may_bring_its_own_validation():
    found = sets(both(validation=arrays(8, 2)))
    assert (found.train.examples, found.validation.examples) == (40, 8)


def test_a_factory_is_called_for_each_split_from_the_recipe_s_folder(tmp_path):
    (tmp_path / "sets.py").write_text(
        "import numpy as np\n"
        "def make(split):\n"
        "    n = {'train': 30, 'validation': 6, 'test': 9}[split]\n"
        "    return np.random.normal(size=(n, 2)), np.random.normal(size=n)\n"
    )
    found = sets("sets.py:make", tmp_path, validation="own")
    assert (found.train.examples, found.validation.examples, found.test.examples) == (30, 6, 9)
    assert (found.train.inputs[0].dtype, found.train.targets.dtype) == (np.float32, np.float32)
    assert found.name == "sets.py:make"
    assert found.fingerprint() == sets("sets.py:make", tmp_path, validation="own").fingerprint()


def test_an_archive_is_looked_for_in_the_recipe_s_folder(tmp_path):
    x, y = arrays()
    np.savez(tmp_path / "set.npz", x_train=x, y_train=y, x_test=x[:8], y_test=y[:8])
    assert sets("npz:set.npz", tmp_path).test.examples == 8


def test_loaders_are_gone_through_as_they_are():
    x, y = arrays()
    loader = DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch_size=8)
    found = sets({"train": loader, "test": loader})
    assert found.validation is None
    assert isinstance(found.feed(found.train), LoaderFeed)
    assert found.train.examples == 40
    judged = list(labelled_batches(found.feed(found.test), {}))
    np.testing.assert_array_equal(np.concatenate([inputs[0] for inputs, _ in judged]), x)
    assert found.calibration({"x": True}).examples == 40


def test_a_loader_s_fingerprint_is_of_what_it_gives_first():
    def fingerprint(x, y, shuffle=False):
        loader = DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch_size=8, shuffle=shuffle)
        return sets({"train": loader, "test": [{"x": x, "y": y}]}).fingerprint()

    x, y = arrays()
    whole = fingerprint(x, y)
    assert whole == fingerprint(x, y)
    assert fingerprint(x, y, shuffle=True) == fingerprint(x, y, shuffle=True) != whole
    for other in (fingerprint(x + 1, y), fingerprint(x, (y + 1) % 4)):
        assert other["train"] != whole["train"]
        assert other["test"] != whole["test"]


def test_an_endless_loader_is_looked_at_no_further_than_its_bounds():
    class Endless:
        given = 0

        def __init__(self, size):
            self.size = size

        def __iter__(self):
            while True:
                self.given += 1
                yield torch.zeros(2, self.size)

    for most, size in ((64, 1), (4, 2**21)):
        endless = Endless(size)
        assert loader_digest(endless) == loader_digest(endless)
        assert endless.given <= 2 * most


def test_models_may_take_different_arguments_of_a_mapping_but_not_miss_a_required_one():
    x, y = arrays()
    batches = [{"left": x, "right": x, "y": y}] * 3
    found = sets({"train": batches, "test": batches})
    found.check_loaders({"one": {"left": True, "right": True}, "other": {"right": True, "mask": False, "left": False}})
    message = r"recipe\.models\.other: .* lacks mask: the forward takes \[left\], mask"
    with pytest.raises(DataError, match=message):
        found.check_loaders({"one": {"left": True}, "other": {"left": False, "mask": True}})
    pairs = sets({"train": [((x, x), y)], "test": [((x, x), y)]})
    pairs.check_loaders({"one": {"left": True, "right": True}, "other": {"right": True, "left": False}})
    with pytest.raises(DataError, match=r"recipe\.models\.other: a batch of 2 inputs does not fit: .* takes x"):
        pairs.check_loaders({"one": {"left": True, "right": True}, "other": {"x": True}})


def test_targets_that_no_metric_can_take_together_are_refused():
    batches = [(torch.zeros(4, n), torch.zeros(4, n, dtype=torch.int64)) for n in (3, 5, 3)]
    found = sets({"train": batches, "test": batches})
    message = r"test has targets of shapes \(3,\) and \(5,\) per example"
    with pytest.raises(DataError, match=message):
        found.check_loaders({"net": {"x": True}})
    with pytest.raises(DataError, match="pad all to one length"):
        list(labelled_batches(found.feed(found.test), {}))
    fits = [(x, y[:, 0]) for x, y in batches]
    sets({"train": batches, "test": fits}).check_loaders({"net": {"x": True}})


def test_arrays_of_several_inputs_are_batched_together():
    x, y = arrays()
    found = sets({"train": ((x, x[:, :1]), y), "test": ((x, x[:, :1]), y)})
    feed = found.feed(found.train, batch=4)
    assert isinstance(feed, ArrayFeed)
    assert [tuple(each.shape) for each in next(feed.epoch(0)).inputs] == [(4, 3), (4, 1)]


def test_calibration_is_of_training_examples_prepared():
    found = sets("digits", calibration=100)
    calibration = found.calibration(())
    assert calibration.examples == 100
    assert max(float(batch[0].max()) for batch in calibration.batches) == 1.0
    rows = {row.tobytes() for row in found.train.inputs[0]}
    given = torch.cat([batch[0] for batch in calibration.batches]) * 16
    assert all(row.numpy().astype(np.uint8).tobytes() in rows for row in given)


@pytest.mark.parametrize(
    ("source", "more", "message"),
    [
        (both(test=None), {}, "the test split is missing"),
        (arrays(), {}, "the test split is missing"),
        (both(test=arrays()[0]), {}, "the test split has no targets"),
        (both(train=(np.zeros((4, 2), np.float32), np.zeros(3))), {}, r"axis 0 should count the same"),
        (both(train=3), {}, "train is a int"),
        (both(train={"text": ["a"]}), {}, r"a mapping with the keys \['text'\] and no arrays of examples"),
        (both(train=(np.zeros((40, 1, 2, 2), np.uint8), np.zeros(40, int))), {}, "no preprocessing is set"),
        (both(train=[(np.zeros((4, 3)), np.zeros(4))] * 3), {"validation": 0.2}, "cannot be held out of a list"),
        (both(), {"validation": "own"}, "own needs a split"),
        (both(val=arrays()), {}, "no split named 'val'; did you mean 'validation'"),
        (both(train=(np.zeros((4, 3), np.float32), np.full(4, np.nan))), {}, "finite numbers were expected"),
        (both(train=((arrays()[0],) * 2, arrays()[1])), {"preprocessing": "unit"}, "does not apply to a loader"),
    ],
)
def test_what_is_no_data_is_refused_in_words(source, more, message):
    with pytest.raises((DataError, SpecError), match=message):
        sets(source, **more)


def test_examples_that_are_not_finite_are_refused():
    x, y = arrays()
    x[:] = np.inf
    with pytest.raises(DataError, match="NaN or infinity"):
        sets({"train": (x, y), "test": (x, y)}).calibration(())


def test_a_factory_that_takes_no_split_is_refused(tmp_path):
    (tmp_path / "sets.py").write_text("def make(): pass\n")
    with pytest.raises(SpecError, match=r"cannot be called as factory\(split='train'\)"):
        sets("sets.py:make", tmp_path)
