"""The methods that ``attar compare`` compares, in the order in which they are tried: what makes a file quickly first.

An addition is one entry here: options of ``attar.prune`` and ``attar.quantize``, or a way to train, with ``TUNED``
where its value says how much is compressed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attar._src.core.errors import SpecError, UnknownName
from attar._src.search.comparison.method import CompressionMethod, Need, Variant
from attar._src.search.comparison.tuned import TUNED
from attar._src.search.plan import FIRST, RECONSTRUCT, UNTOUCHED

#: Bits of its own for each weight, by the integer program.
_SIZED: Mapping[str, Any] = {"max_bytes": TUNED, "scales": "gptq"}
#: The same, and what layers read in integers.
_INTEGERS: Mapping[str, Any] = {**_SIZED, "activations": 8}
_LABELS: frozenset[Need] = frozenset({"labels"})
_TRAINING: frozenset[Need] = frozenset({"training"})


def _trained(way: str, option: str, like: str | None = None) -> Variant:
    return Variant(train={"way": way, option: TUNED}, like=like, needs=_TRAINING)


#: Name -> method.
METHODS: Mapping[str, CompressionMethod] = {
    each.name: each
    for each in (
        # The same bits for all weights: seconds, and what most people try first.
        *(CompressionMethod(step.name, (Variant(quantize=step.options),)) for step in FIRST if step.name != UNTOUCHED),
        CompressionMethod("quantization", (Variant(quantize=_SIZED),)),
        CompressionMethod("quantization in integers", (Variant(quantize=_INTEGERS),)),
        CompressionMethod(
            "pruned weights, by magnitude",
            (Variant(prune={"sparsity": TUNED, "score": "l1", "update": "none", "scope": "global"}),),
        ),
        CompressionMethod("pruned weights", (Variant(prune={"sparsity": TUNED}),)),
        CompressionMethod("pruned 2:4", (Variant(prune={"unit": "2:4"}),)),
        CompressionMethod(
            "pruned channels",
            (
                Variant(prune={"macs": TUNED, "score": "taylor"}, needs=_LABELS),
                Variant(prune={"channels": TUNED, "score": "l2"}),
            ),
        ),
        CompressionMethod("pruned layers", (Variant(prune={"layers": TUNED}),)),
        CompressionMethod(
            "quantization, reconstructed", (Variant(quantize={**_SIZED, "reconstruct": dict(RECONSTRUCT)}),)
        ),
        CompressionMethod(
            "pruned weights + quantization",
            tuple(Variant(prune={"sparsity": share}, quantize=_SIZED) for share in (0.3, 0.5)),
        ),
        CompressionMethod("pruned 2:4 + quantization", (Variant(prune={"unit": "2:4"}, quantize=_SIZED),)),
        CompressionMethod(
            "pruned channels + quantization in integers",
            (Variant(prune={"channels": 0.1, "score": "l2"}, quantize=_INTEGERS),),
        ),
        CompressionMethod(
            "pruned layers + quantization in integers", (Variant(prune={"layers": 1}, quantize=_INTEGERS),)
        ),
        CompressionMethod("trained quantization", (_trained("grids on labels", "max_bytes"),)),
        CompressionMethod("distillation + trained quantization", (_trained("distilled", "max_bytes"),)),
        CompressionMethod("gradual pruning", (_trained("gradual", "sparsity", "pruned weights"),)),
        CompressionMethod("gradual pruning + distillation + trained quantization", (_trained("sparse", "max_bytes"),)),
        CompressionMethod(
            "pruned channels + distillation", (_trained("fewer channels", "channels", "pruned channels"),)
        ),
        CompressionMethod("pruned layers + distillation", (_trained("fewer layers", "layers", "pruned layers"),)),
        CompressionMethod(
            "pruned channels + distillation + trained quantization", (_trained("narrower", "max_bytes"),)
        ),
        CompressionMethod("pruned layers + distillation + trained quantization", (_trained("shallower", "max_bytes"),)),
    )
}


def chosen_methods(names: Sequence[str] | None) -> list[CompressionMethod]:
    """Return the methods with these names in the order of the table; all for None.

    Raises:
        SpecError: it is one text, or none are named.
        UnknownName: there is no such method.
    """
    if isinstance(names, str) or (names is not None and not len(names)):
        raise SpecError(f"methods={names!r}: give a list of names, such as ['quantization'], or none for all")
    for name in names or ():
        if name not in METHODS:
            raise UnknownName("method", name, METHODS)
    return [each for each in METHODS.values() if names is None or each.name in names]
