"""A stage between two trainings: the widest error first, one layer is put on a two-bit grid, and the rest may recover."""

from attar.extend import Absmax, CompressedModel, PerChannel, Scheme, Stage


class Coarse(Stage):
    """Put one weight on a grid of ``bits``; what is trained afterwards is held to it."""

    works_on = CompressedModel

    stage: str = "coarse"
    tensor: str
    bits: int = 2

    def run(self, model, context):
        weight = model.stored()[self.tensor].dense()
        solved = Absmax().solve(weight, Scheme(bits=self.bits, granularity=PerChannel(axis=0)))
        return model.done(self.describe(), tensors={**model.tensors, self.tensor: solved})
