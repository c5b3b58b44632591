"""A solver that looks at what the layer does: the scales with the least output error on the calibration data."""

import numpy as np

from attar import SpecError
from attar.extend import InputHessian, PerChannel, Solver, affine_grid, round_to_grid, weight_extremes


class OutputMse(Solver):
    """Of each output channel the absmax scale, times the factor with the smallest d^T H d; d is the rounding error."""

    name = "output_mse"
    inputs = (InputHessian,)

    def solve(self, weight, scheme, inputs):
        if scheme.granularity != PerChannel(axis=0):
            raise SpecError(f"output_mse finds a scale for each output channel, not {scheme.granularity}")
        hessian = inputs[InputHessian]
        scale, zero_point = affine_grid(*weight_extremes(weight, scheme), scheme)

        def errors(tensor):
            rows = hessian.window.rows(tensor.dense() - weight).astype(np.float64)
            return np.einsum("gri,gij,grj->gr", rows, hessian.matrix, rows).reshape(-1)

        factors = np.linspace(0.4, 1, 25, dtype=np.float32)
        tried = [errors(round_to_grid(weight, factor * scale, zero_point, scheme)) for factor in factors]
        return round_to_grid(weight, factors[np.argmin(tried, 0)] * scale, zero_point, scheme)
