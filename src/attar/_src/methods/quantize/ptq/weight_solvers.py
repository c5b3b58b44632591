"""Which solver a stage takes for each weight: that of its scheme, or that of its affine grids."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attar._src.core.errors import SpecError, UnknownName
from attar._src.core.scheme import Scheme
from attar._src.core.tensors import Codebook, CompressedTensor, Quantized
from attar._src.methods.allocate.level import Level
from attar._src.methods.allocate.target import BitTarget
from attar._src.methods.quantize.field_types import read_granularity
from attar._src.methods.quantize.ptq.registry import SCHEMES, SOLVERS
from attar._src.methods.quantize.ptq.schemes.level_scheme import LevelScheme
from attar._src.methods.quantize.ptq.solvers.automatic import AutomaticScales
from attar._src.methods.quantize.ptq.solvers.solver import InputStatistics, Solver
from attar._src.methods.quantize.ptq.solvers.zeros import with_zeros

#: The scheme of all codes of a grid, whose scales a solver finds.
AFFINE = "affine"
#: The solver that is chosen by bits.
AUTO_SCALES = AutomaticScales.name
#: Kinds of granularities that a weight may have of its own, and the bits that are tried with them.
GRANULARITIES = ("group", "bucket", "tensor", "channel")
FEW_BITS = (2, 3, 4)


def check_scheme(scheme: str, bits: int | BitTarget, *, symmetric: bool, rate: float) -> None:
    """Check a scheme and the options beside it.

    Raises:
        UnknownName: there is no such scheme.
        SpecError: the scheme has no such bits, or an option does not go with it.
    """
    if scheme == AFFINE:
        if bits == 1:
            raise SpecError("an affine grid has 2 bits or more; for weights of one bit take scheme binary or codebook")
        if isinstance(bits, BitTarget):
            alternative_levels(bits.alternatives, symmetric=symmetric)
        return
    if ":" not in scheme and scheme not in [*SCHEMES]:
        raise UnknownName("scheme", scheme, (AFFINE, *SCHEMES))
    if isinstance(bits, BitTarget):
        raise SpecError("size, max_bytes and max_drop choose bits of affine grids; give bits, or leave scheme out")
    if not symmetric:
        raise SpecError(f"scheme {scheme!r} has no zero points; leave asymmetric out, or scheme")
    if rate:
        raise SpecError(f"scheme {scheme!r} minimizes no bits; leave rate out, or take scheme affine with scales gptq")
    SCHEMES[scheme].check_bits(bits)


def with_fields_that_follow(fields: Any) -> Any:
    """Return the fields of a stage with those that follow from others.

    ``bits`` where the scheme has only one form: 2 for ternary weights. Under a target, where weights of few and of many
    bits are measured alike, ``auto`` scales are those of ``gptq``.
    """
    if not isinstance(fields, dict):
        return fields
    if isinstance(fields.get("bits"), Mapping | BitTarget) and fields.get("scales", AUTO_SCALES) == AUTO_SCALES:
        return {**fields, "scales": "gptq"}
    scheme = fields.get("scheme")
    widths = SCHEMES[scheme].widths if isinstance(scheme, str) and scheme in [*SCHEMES] else ()
    return {"bits": widths[0], **fields} if len(widths) == 1 else fields


def alternative_levels(names: Sequence[str], *, symmetric: bool) -> tuple[Level, ...]:
    """Return levels of other schemes and granularities, at the widths that a scheme has, or 2, 3 and 4 bits.

    Args:
        names: of schemes, or granularities as ``group:32``.
        symmetric: whether the stage's grids are.

    Raises:
        UnknownName: one is neither.
        SpecError: a scheme does not go with the stage.

    Example:
        >>> [str(each) for each in alternative_levels(["ternary", "group:32"], symmetric=True)]
        ['2 ternary', '2 group:32', '3 group:32', '4 group:32']
    """
    found: list[Level] = []
    for name in names:
        if name.partition(":")[0] in GRANULARITIES:
            try:
                read_granularity(name)
            except ValueError as error:
                raise SpecError(f"alternatives: {name!r}: {error}") from None
            found += [Level(bits, granularity=name) for bits in FEW_BITS]
            continue
        if name not in [*SCHEMES]:
            raise UnknownName("alternative", name, (*SCHEMES, *GRANULARITIES))
        if not symmetric:
            raise SpecError(f"alternatives: scheme {name!r} has no zero points; leave it out, or asymmetric")
        found += [Level(bits, scheme=name) for bits in SCHEMES[name].widths if bits <= FEW_BITS[-1]]
    return tuple(found)


def solvers_of(
    elements: Mapping[str, int], bits: Mapping[str, int], scheme: str, scales: str, rate: float, affine: Collection[str]
) -> dict[str, Solver]:
    """Return the solver of each weight to quantize.

    Args:
        elements: weight -> the number of its elements.
        bits: weight to quantize -> its bits, where they are fixed.
        scheme: of the weights that are not in ``affine``.
        scales: name of the solver of affine weights.
        rate: one bit of each weight costs so many times the mean error of all layers.
        affine: names of weights that are affine in any case.
    """
    solver = SOLVERS[scales]
    if rate:
        solver = solver.at_rate(rate * len(elements) / max(sum(elements.values()), 1))
    own = {name: solver.at_bits(bits[name]) for name in bits}
    return own if scheme == AFFINE else {name: own[name] if name in affine else SCHEMES[scheme] for name in bits}


def solve_levels(
    solvers: Mapping[Level, Solver],
    weight: NDArray[np.float32],
    scheme: Callable[[Level], Scheme],
    seen: InputStatistics | None,
) -> dict[Level, CompressedTensor]:
    """Return a weight at several levels, each by its solver, on the grid that ``scheme`` gives it.

    Levels on one grid, with the same share of zeros, are solved together.

    Raises:
        SpecError: scales must be powers of two and are not.
    """
    together: dict[tuple[type[Solver], Scheme, float], list[Level]] = {}
    for at, solver in solvers.items():
        together.setdefault((type(solver), scheme(at), at.sparsity), []).append(at)
    found: dict[Level, CompressedTensor] = {}
    for (kind, grid, sparsity), levels in together.items():
        given = with_zeros(weight, sparsity, seen) if sparsity else weight
        made = kind.solve_each([solvers[at] for at in levels], given, grid, seen)
        for at, tensor in zip(levels, made, strict=True):
            _check_scales(tensor, grid, solvers[at])
            found[at] = tensor
    return {at: found[at] for at in solvers}


def _check_scales(tensor: CompressedTensor, scheme: Scheme, solver: Solver) -> None:
    if scheme.power_of_two and isinstance(tensor, Quantized | Codebook) and (np.frexp(tensor.scale)[0] != 0.5).any():
        raise SpecError(
            f"solver {solver.name!r} found scales that are no powers of two; take one that chooses them by "
            "affine_grid, such as mse or gptq"
        )


def most_seeing(solvers: Collection[Solver]) -> Solver:
    """Return the solver that sees most of a weight's inputs: what it sees serves the others.

    Raises:
        SpecError: one sees what no other does.
    """
    most = max(solvers, key=lambda each: len(each.inputs))
    for each in solvers:
        if not set(each.inputs) <= set(most.inputs):
            raise SpecError(
                f"solvers {each.name!r} and {most.name!r} see {each.needed()} and {most.needed()}; choose between "
                "those that see the same"
            )
    return most


def scheme_names(
    before: Mapping[str, str], solved: Mapping[str, CompressedTensor], solvers: Mapping[str, Solver]
) -> dict[str, str]:
    """Return weight -> the scheme it has, of weights that use some codes of their grids alone.

    Args:
        before: those of earlier stages.
        solved: what this stage solved.
        solvers: how.
    """
    found = {name: scheme for name, scheme in before.items() if name not in solved}
    for name, tensor in solved.items():
        solver = solvers[name]
        if isinstance(solver, LevelScheme) and isinstance(tensor, Quantized) and not solver.whole(tensor.scheme):
            found[name] = solver.name
    return found
