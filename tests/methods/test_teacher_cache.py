"""A bank holds what the teacher says of every variant, goes on where it was cut short, and is taken for no other."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from safetensors import safe_open
from torch import nn

from attar._src.core.errors import AttarError, ModelError, SpecError
from attar._src.methods.teachers import cache
from attar._src.methods.teachers.teacher import CachedTeacher, LiveTeacher
from attar._src.train.augment import Crop, Flip, Noise
from attar._src.train.batch import Batch
from attar._src.train.feed import ArrayFeed, LoaderFeed

EXAMPLES, VARIANTS = 250, 18  # 4,500 rows: four batches and a part of one


def _feed(seed=0, **fields):
    images = np.random.default_rng(seed).integers(0, 256, (EXAMPLES, 2, 6, 6), np.uint8)
    labels = np.arange(EXAMPLES) % 3
    told = {"prepare": lambda raw: raw.float() / 255, "augment": (Crop(padding=1), Flip()), "batch": 32, **fields}
    return ArrayFeed((images,), labels, **told)


def _teacher(seed=0, **options):
    torch.manual_seed(seed)
    program = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    fabric = Fabric(accelerator="cpu", devices=1, **options)
    fabric.launch()
    return LiveTeacher(program, fabric)


class Counting:
    """A teacher that is stopped at some batch."""

    def __init__(self, stop=None):
        self.teacher, self.stop, self.calls = _teacher(), stop, 0
        self.fingerprint = self.teacher.fingerprint

    def outputs(self, batch):
        self.calls += 1
        if self.calls == self.stop:
            raise KeyboardInterrupt
        return self.teacher.outputs(batch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return cache.build_cache(_teacher(), _feed(), tmp_path_factory.mktemp("bank") / "all.safetensors")


def test_every_variant_of_every_example_is_what_the_teacher_says(whole):
    feed, teacher = _feed(), _teacher()
    assert whole.logits.shape == (EXAMPLES, VARIANTS, 3)
    assert whole.logits.dtype is torch.float16
    everything = torch.arange(EXAMPLES)
    for variant in range(VARIANTS):
        chosen = torch.full_like(everything, variant)
        said = teacher.outputs(feed.at(everything, chosen))
        # Batches of another size may sum in another order, by less than half precision sees but for ties.
        torch.testing.assert_close(whole.look_up(everything, chosen), said, rtol=2**-10, atol=1e-6)
    assert not torch.equal(whole.logits[:, 0], whole.logits[:, 1])


def test_training_batches_find_their_own(whole):
    feed, teacher = _feed(), _teacher()
    banked = CachedTeacher(whole, teacher)
    for batch in feed.epoch(3):
        torch.testing.assert_close(banked.outputs(batch), teacher.outputs(batch), rtol=2**-10, atol=1e-6)


def test_a_batch_that_does_not_say_its_examples_asks_the_teacher(whole):
    batch = next(_feed(seed=5).once())
    teacher = _teacher()
    found = CachedTeacher(whole, teacher).outputs(Batch(batch.inputs, batch.targets))
    assert torch.equal(found, teacher.outputs(batch))


def test_some_variants_of_each_example(tmp_path):
    feed, teacher = _feed(), _teacher()
    made = cache.build_cache(teacher, feed, tmp_path / "some.safetensors", variants=5, seed=1)
    assert made.logits.shape == (EXAMPLES, 5, 3)
    assert made.variant.shape == (EXAMPLES, 5)
    assert bool((made.variant.diff(dim=1) > 0).all())
    assert made.variant.unique().tolist() == list(range(VARIANTS))
    assert len(made.variant.unique(dim=0)) > EXAMPLES // 2
    seen = set()
    for batch in made.limit(feed).epoch(0):
        seen |= set(batch.variant.tolist())
        said = teacher.outputs(batch)
        torch.testing.assert_close(made.look_up(batch.index, batch.variant), said, rtol=2**-10, atol=1e-6)
    assert len(seen) == VARIANTS
    others = next(feed.epoch(0))
    with pytest.raises(SpecError, match=r"5 variants of each example.*cache.limit"):
        made.look_up(others.index, others.variant)


def test_the_same_seed_chooses_the_same_and_all_is_no_choice(tmp_path):
    one, other, third = (
        cache.build_cache(_teacher(), _feed(), tmp_path / f"{name}.safetensors", variants=2, seed=seed)
        for name, seed in (("one", 4), ("other", 4), ("third", 5))
    )
    assert one.path.read_bytes() == other.path.read_bytes() != third.path.read_bytes()
    every = cache.build_cache(_teacher(), _feed(), tmp_path / "every.safetensors", variants=VARIANTS)
    assert every.variant is None


@pytest.mark.parametrize("variants", [None, 11])
def test_cut_short_anywhere_it_ends_in_the_same_bytes(tmp_path, variants):
    expected = cache.build_cache(Counting(), _feed(), tmp_path / "whole.safetensors", variants=variants, seed=2).path
    path = tmp_path / "cut.safetensors"
    growing = path.with_name(f".{path.name}.part")
    calls = []
    for stop in (2, 4, 3):
        teacher = Counting(stop)
        with pytest.raises(KeyboardInterrupt):
            cache.build_cache(teacher, _feed(), path, variants=variants, seed=2)
        assert not path.exists()
        calls.append(teacher.calls)
        with growing.open("ab") as file:
            file.write(b"torn")  # a batch that was being written
    last = Counting()
    cache.build_cache(last, _feed(), path, variants=variants, seed=2)
    assert path.read_bytes() == expected.read_bytes()
    assert last.calls < 1 + -(-EXAMPLES * (variants or VARIANTS) // 1024)
    assert not growing.exists()


def test_cut_short_before_its_name_was_changed_it_is_not_made_again(tmp_path):
    path = cache.build_cache(Counting(), _feed(), tmp_path / "x.safetensors").path
    expected = path.read_bytes()
    path.rename(path.with_name(f".{path.name}.part"))
    teacher = Counting()
    cache.build_cache(teacher, _feed(), path)
    assert path.read_bytes() == expected
    assert teacher.calls == 3  # for the form of the outputs, for the last whole batch, for the rest


def test_what_was_begun_for_another_teacher_is_begun_again(tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(KeyboardInterrupt):
        cache.build_cache(Counting(stop=4), _feed(seed=1), path)
    cache.build_cache(Counting(), _feed(), path)
    assert path.read_bytes() == cache.build_cache(Counting(), _feed(), tmp_path / "y.safetensors").path.read_bytes()


def test_a_bank_that_is_there_is_opened(whole):
    teacher = Counting()
    there = cache.build_cache(teacher, _feed(batch=8), whole.path)
    assert teacher.calls == 0
    assert torch.equal(there.logits, whole.logits)


OTHERS = {
    "teacher": lambda: (_teacher(1), _feed(), {}),
    "data": lambda: (_teacher(), _feed(seed=1), {}),
    "inputs": lambda: (_teacher(), _feed(augment=(Flip(), Crop(padding=1))), {}),
    "seed, variants": lambda: (_teacher(), _feed(), {"variants": 3}),
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_bank_of_something_else_is_refused(whole, what):
    teacher, feed, options = OTHERS[what]()
    with pytest.raises(SpecError, match=rf"other .*{what}.*remove it"):
        cache.build_cache(teacher, feed, whole.path, **options)


def test_precision_and_preparation_tell_banks_apart():
    feed, teacher = _feed(), _teacher()
    said = cache.cache_fingerprints(teacher, feed)
    assert said == cache.cache_fingerprints(_teacher(), replace(feed, batch=4, targets=None))
    assert said["teacher"] != cache.cache_fingerprints(_teacher(precision="bf16-mixed"), feed)["teacher"]
    assert (
        said["inputs"]
        != cache.cache_fingerprints(teacher, replace(feed, prepare=lambda raw: raw.float() / 256))["inputs"]
    )


def test_endless_variants_cannot_be_kept(tmp_path, whole):
    with pytest.raises(SpecError, match=r"infinitely many variants.*without a cache"):
        cache.build_cache(_teacher(), _feed(augment=(Flip(), Noise())), tmp_path / "x.safetensors")
    with pytest.raises(SpecError, match="infinitely many variants"):
        whole.look_up(torch.arange(3), None)


def test_a_loader_cannot_be_kept(tmp_path):
    loader = LoaderFeed([(torch.rand(4, 2, 6, 6), torch.zeros(4, dtype=torch.int64))])
    with pytest.raises(SpecError, match="give arrays"):
        cache.build_cache(_teacher(), loader, tmp_path / "x.safetensors")


@pytest.mark.parametrize("variants", [0, VARIANTS + 1])
def test_more_variants_than_there_are(tmp_path, variants):
    with pytest.raises(SpecError, match=f"use 1 to {VARIANTS}"):
        cache.build_cache(_teacher(), _feed(), tmp_path / "x.safetensors", variants=variants)


def test_examples_and_variants_that_are_not_there(whole):
    with pytest.raises(SpecError, match=r"250 examples \(got index 250\)"):
        whole.look_up(torch.tensor([0, 250]), torch.tensor([0, 0]))
    with pytest.raises(SpecError, match=r"18 variants \(got index 18\)"):
        whole.look_up(torch.tensor([0, 1]), torch.tensor([0, 18]))


def test_outputs_that_half_precision_cannot_hold(tmp_path):
    teacher = _teacher()
    teacher.program[4].bias.data.fill_(1e5)
    with pytest.raises(ModelError, match="half precision"):
        cache.build_cache(teacher, _feed(), tmp_path / "x.safetensors")


def test_a_damaged_bank_is_named(tmp_path):
    path = cache.build_cache(_teacher(), _feed(), tmp_path / "x.safetensors").path
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(AttarError, match=r"damaged.*remove it"):
        cache.open_cache(path)
    path.write_bytes(data[:-10])
    with pytest.raises(AttarError, match=r"damaged.*remove it"):
        cache.open_cache(path)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(AttarError, match="cannot be written"):
        cache.build_cache(_teacher(), _feed(), tmp_path / "file" / "x.safetensors")


def test_others_can_read_it(whole):
    with safe_open(whole.path, framework="np") as file:
        assert sorted(file.keys()) == ["logits"]
        assert file.get_tensor("logits").dtype == np.float16
