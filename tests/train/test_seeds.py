import random

import numpy as np
import torch

from attar._src.train.seeds import IsolatedRandom, derive_seed, seed_everything


def test_a_seed_is_63_bits_and_is_the_same_for_ever():
    assert derive_seed(0, "order", 7) == 6767117556167747427
    assert 0 <= derive_seed(-(10**30), "") < 2**63


def test_seeds_of_different_purposes_differ():
    words = [(0,), (1,), (0, "a"), (0, "b"), (0, 1), (0, "1"), (0, "a", 1), (0, "a1"), (0, "a", "1")]
    assert len({derive_seed(*each) for each in words}) == len(words)


def draw():
    return float(torch.rand(())), random.random(), float(np.random.random())


def test_what_draws_apart_is_not_noticed_outside_and_goes_on_inside():
    seed_everything(1)
    outside = [draw(), draw()]
    seed_everything(2)
    inside = [draw(), draw()]
    seed_everything(1)
    apart = IsolatedRandom(2)
    found = [draw()]
    with apart:
        first = draw()
    found.append(draw())
    with apart:
        second = draw()
    assert found == outside
    assert [first, second] == inside
