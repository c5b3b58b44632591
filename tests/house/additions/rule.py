"""A rule: every weight is zero or plus or minus a power of two, so that a product is a shift."""

import numpy as np
import torch

from attar.extend import Codebook, Constraint, Parametrization, PerTensor, Rule


class NearestPower(Parametrization):
    """The weight at its nearest point of 0, +-2^-smallest, ..., +-1/2, +-1."""

    def __init__(self, smallest):
        super().__init__()
        powers = 2.0 ** -torch.arange(smallest + 1)
        self.register_buffer("points", torch.cat([-powers, torch.zeros(1), powers.flip(0)]))

    def forward(self, x):
        return x + (self.points[self.codes(x.detach())] - x).detach()

    def codes(self, x):
        return torch.bucketize(x.contiguous(), (self.points[1:] + self.points[:-1]) / 2)

    def to_compressed(self, value):
        one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
        return Codebook(self.codes(value).numpy().astype(np.uint8), self.points.numpy(), one, zero, PerTensor())


class PowersOfTwo(Rule):
    """Every weight of the module on powers of two."""

    name: str = "powers_of_two"
    smallest: int = 6

    def attach(self, learner):
        return Constraint({name: NearestPower(self.smallest) for name in learner.weights})
