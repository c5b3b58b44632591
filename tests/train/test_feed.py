from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.train.jobs import feed
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from attar._src.core.errors import DataError, SpecError
from attar._src.data.preprocessing import find_preprocessing
from attar._src.runtime.preprocess import preprocess
from attar._src.train.augment import Crop, Flip, Noise
from attar._src.train.feed import ArrayFeed, LoaderFeed, preprocessor


def flat(batches):
    return [(b.inputs[0].numpy().tobytes(), b.targets.tolist(), b.index.tolist()) for b in batches]


def seen(batches):
    return [i for batch in batches for i in batch.index.tolist()]


def test_an_epoch_is_every_example_once_but_for_what_does_not_fill_a_batch():
    whole, left = feed(192), feed(200)
    assert sorted(seen(whole.epoch(0))) == list(range(192))
    assert len(set(seen(left.epoch(0)))) == 192
    assert (whole.steps, left.steps, left.examples, left.variants, left.labelled) == (6, 6, 200, 18, True)


def test_an_epoch_follows_from_seed_and_number_alone():
    one, other = feed(), feed()
    list(one.epoch(0))
    torch.manual_seed(99)
    assert flat(one.epoch(1)) == flat(other.epoch(1))
    assert seen(one.epoch(1)) != seen(one.epoch(2))
    assert seen(one.epoch(1)) != seen(feed(seed=4).epoch(1))


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_share_each_batch_of_one_rank(world):
    alone = [set(batch.index.tolist()) for batch in feed().epoch(3)]
    shards = [list(feed(rank=rank, world=world).epoch(3)) for rank in range(world)]
    for step, whole in enumerate(alone):
        parts = [shard[step].index.tolist() for shard in shards]
        assert [len(part) for part in parts] == [32 // world] * world
        assert sorted(i for part in parts for i in part) == sorted(whole)
    both = torch.cat([shards[rank][0].inputs[0] for rank in range(world)])
    assert torch.equal(both, next(iter(feed().epoch(3))).inputs[0])


def test_a_set_smaller_than_a_batch_is_one_batch_shared_evenly():
    assert [len(batch) for batch in feed(10).epoch(0)] == [10]
    shards = [list(feed(11, rank=rank, world=2).epoch(0)) for rank in range(2)]
    assert [[len(b) for b in shard] for shard in shards] == [[5], [5]]
    assert len(set(seen(shards[0]) + seen(shards[1]))) == 10


def test_a_batch_is_the_variant_it_says_of_the_example_it_says():
    set_ = feed()
    for batch in set_.epoch(0):
        again = set_.at(batch.index, batch.variant)
        assert torch.equal(batch.inputs[0], again.inputs[0])
        assert torch.equal(batch.targets, set_.targets[batch.index])
    drawn = torch.cat([batch.variant for n in range(20) for batch in set_.epoch(n)])
    counts = torch.bincount(drawn, minlength=18)
    assert int(counts.min()) > 0.6 * len(drawn) / 18


def test_only_allowed_variants_are_drawn():
    allowed = torch.stack([torch.randperm(18)[:3] for _ in range(200)])
    limited = replace(feed(), allowed=allowed)
    got = {}
    for number in range(30):
        for batch in limited.epoch(number):
            for i, v in zip(batch.index.tolist(), batch.variant.tolist(), strict=True):
                got.setdefault(i, set()).add(v)
    assert all(got[i] == set(allowed[i].tolist()) for i in got)
    for wrong in (allowed[:9], allowed + 18, allowed.int(), allowed[:, :0], -1 - allowed):
        with pytest.raises(DataError, match="allowed should be int64"):
            replace(feed(), allowed=wrong)
    with pytest.raises(SpecError, match="endless"):
        replace(feed(), augment=(Noise(),), allowed=allowed)


def test_once_is_everything_in_order_and_as_it_is():
    set_ = feed(rank=1, world=2)
    batches = list(set_.once())
    assert seen(batches) == list(range(200))
    assert torch.equal(torch.cat([b.inputs[0] for b in batches]), set_.inputs[0].float() / 16)
    assert all((b.variant == 0).all() for b in batches)


def test_endless_augmentation_acts_on_prepared_inputs_and_differs_between_ranks():
    noisy = feed(augment=(Flip(), Noise(sd=0.1)))
    assert noisy.variants is None
    assert flat(noisy.epoch(0)) == flat(noisy.epoch(0))
    batch = next(noisy.epoch(0))
    assert batch.variant is None
    assert float((batch.inputs[0] - batch.inputs[0].mul(16).round().div(16)).abs().max()) > 0
    other = next(feed(augment=(Flip(), Noise(sd=0.1)), rank=1, world=2).epoch(0))
    assert len(other) == 16


def test_arrays_several_inputs_and_no_targets():
    x = np.arange(24, dtype=np.float64).reshape(6, 4)
    x.flags.writeable = False
    tokens = np.arange(6, dtype=np.int64)
    set_ = ArrayFeed((x, tokens, x[::-1]), batch=4)
    batch = next(set_.epoch(0))
    assert [each.dtype for each in batch.inputs] == [torch.float32, torch.int64, torch.float32]
    assert batch.inputs[0][:, 0].tolist() == [4 * i for i in batch.inputs[1].tolist()]
    assert batch.targets is None
    assert not set_.labelled


def test_preparation_is_the_arithmetic_of_files():
    raw = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
    assert np.array_equal(
        preprocessor(find_preprocessing("cifar10"))(raw).numpy(), preprocess(find_preprocessing("cifar10"), raw.numpy())
    )
    assert preprocessor(None)(raw) is raw
    assert preprocessor(None)(raw.double()).dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"inputs": ()}, DataError, "do not go together"),
        ({"inputs": (torch.zeros(0, 2),)}, DataError, "do not go together"),
        ({"inputs": (torch.zeros(3),), "targets": torch.zeros(2)}, DataError, r"\[3, 2\] examples"),
        ({"inputs": ("text",)}, DataError, "str arrived"),
        ({"inputs": (torch.zeros(9),), "batch": 5, "world": 2}, SpecError, "use a multiple of 2"),
        ({"inputs": (torch.zeros(3),), "batch": 8, "world": 4}, DataError, "use fewer devices"),
    ],
)
def test_what_cannot_be_fed(options, error, match):
    with pytest.raises(error, match=match):
        ArrayFeed(**options)


SET = TensorDataset(torch.arange(20.0).reshape(20, 1).double(), torch.arange(20, dtype=torch.int32))


def values(batches):
    return [batch.targets.tolist() for batch in batches]


@pytest.mark.parametrize("own", [False, True])
def test_a_loader_that_shuffles_repeats_each_epoch(own):
    def make():
        generator = torch.Generator() if own else None
        return LoaderFeed(DataLoader(SET, batch_size=6, shuffle=True, generator=generator), seed=1)

    one, other = make(), make()
    list(one.epoch(0))
    state = torch.get_rng_state()
    assert values(one.epoch(1)) == values(other.epoch(1)) != values(one.epoch(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert (one.examples, one.steps, one.variants, one.labelled) == (20, 4, None, True)
    batch = next(one.once())
    assert batch.inputs[0].dtype == torch.float32
    assert batch.targets.dtype == torch.int64
    assert values(one.once()) == values(other.once())


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a single core
def test_workers_draw_the_same_too():
    class Noisy(TensorDataset):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return x + torch.rand(1), y

    one, other = (LoaderFeed(DataLoader(Noisy(*SET.tensors), batch_size=5, num_workers=2), seed=1) for _ in range(2))
    first = torch.cat([batch.inputs[0] for batch in one.epoch(4)])
    assert torch.equal(first, torch.cat([batch.inputs[0] for batch in other.epoch(4)]))


def test_ranks_slice_the_batches_of_a_loader():
    parts = [
        values(LoaderFeed(DataLoader(SET, batch_size=8, shuffle=True), rank=r, world=2).epoch(0)) for r in range(2)
    ]
    alone = values(LoaderFeed(DataLoader(SET, batch_size=8, shuffle=True)).epoch(0))
    assert [a + b for a, b in zip(*parts, strict=True)] == alone
    assert values(LoaderFeed(DataLoader(SET, batch_size=8), rank=1, world=2).once()) == values(
        LoaderFeed(DataLoader(SET, batch_size=8)).once()
    )


def test_the_forms_of_a_batch():
    x, y = torch.ones(2, 3), torch.tensor([0, 1])
    for item in (x, (x,), [[x]]):
        assert not LoaderFeed([item]).labelled
    two = next(LoaderFeed([((x, x + 1), y)]).epoch(0))
    assert (len(two.inputs), two.targets.tolist()) == (2, [0, 1])
    named_ = next(
        LoaderFeed([{"labels": y, "mask": x, "ids": y, "other": 3}], parameters={"ids": True, "mask": False}).epoch(0)
    )
    assert torch.equal(named_.inputs[0], y)
    assert named_.targets.tolist() == [0, 1]
    assert next(LoaderFeed([(x.numpy(), y.numpy().astype(np.uint8))]).epoch(0)).targets.dtype == torch.int64


def test_a_stream_without_a_length_is_counted():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(torch.arange(10.0).reshape(10, 1))

    stream = LoaderFeed(DataLoader(Stream(), batch_size=4))
    assert (stream.examples, stream.steps) == (None, 3)


def test_a_sampler_is_told_the_epoch():
    class Sampler(list):
        def set_epoch(self, number):
            self[:] = [number, 0]

    sampler = Sampler([0, 1])
    loader = LoaderFeed(DataLoader(SET, batch_size=2, sampler=sampler))
    assert values(loader.epoch(7)) == [[7, 0]]


@pytest.mark.parametrize(
    ("loader", "error", "match"),
    [
        (iter([1]), DataError, "can be iterated once"),
        ([], DataError, "gives no batches"),
        ([(torch.ones(2), torch.ones(2), 3)], DataError, "a batch of 3 entries"),
        ([(torch.ones(2), torch.ones(3))], DataError, r"inputs \[\(2,\)\] and targets \(3,\)"),
        ([{"a": torch.ones(2)}], DataError, r"keys \['a'\] has no argument of it: the forward takes no arguments"),
        (["text"], DataError, "str arrived"),
        (DataLoader(SET, num_workers=1, persistent_workers=True), SpecError, "persistent_workers=False"),
    ],
)
def test_loaders_that_cannot_feed(loader, error, match):
    with pytest.raises(error, match=match):
        LoaderFeed(loader)


def test_crop_of_raw_bytes_is_black_not_mean():
    x = torch.full((4, 3, 2, 2), 200, dtype=torch.uint8)
    set_ = ArrayFeed((x,), batch=4, prepare=preprocessor(find_preprocessing("cifar10")), augment=(Crop(padding=1),))
    made = set_.at(torch.tensor([0]), torch.tensor([1])).inputs[0]
    assert float(made.min()) == pytest.approx(-0.4914 / 0.2470, rel=1e-4)


def test_every_batch_of_a_loader_has_the_inputs_of_the_first():
    x = torch.zeros(2, 1)
    feed_ = LoaderFeed([{"a": x, "y": x}, {"a": x, "mask": x, "y": x}], {"a": True, "mask": False})
    assert feed_.first.names == ("a",)
    with pytest.raises(DataError, match="has the inputs a, mask and the first had a;"):
        list(feed_.epoch(0))
