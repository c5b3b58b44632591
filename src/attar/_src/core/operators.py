"""The one table of operators: what compression has to know of each (``docs/decisions/0017-one-table-of-operators.md``).

A row holds an operator's names in PyTorch and in ONNX, and its facts; to add an operator is to add a row. Arguments go
by the names in PyTorch's schema: ``conv2d.default`` reads ``input``, ``weight``, ``bias``, ..., ``groups``.
``model.operators`` answers questions about the nodes of a traced graph from it, ``runtime`` reads it by ONNX type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

Kind = Literal[
    "layer",  # y = x W^T + b: product of data and a weight, plus a bias
    "product",  # y = a b: product of matrices, the second of which may be a weight
    "recurrent",
    "embedding",
    "attention",
    "batch_norm",
    "instance_norm",
    "move",  # the output has only elements of the inputs, or zeros: one grid holds on both sides
    "clip",  # y = min(max(x, low), high): kernels take it in as the range of the codes before it
    "pass",  # sums and averages: they run in integers where their neighbours do
    "other",
]


@dataclass(frozen=True)
class OperatorRow:
    """A row of the table.

    Attributes:
        aten: overloads of ``torch.ops.aten``, separated by spaces.
        onnx: the ONNX types they become, separated by spaces; of a move, the type that runs on codes.
        kind: what it does, as far as compression is concerned.
        data: arguments that are data.
        weight: argument that may be a weight.
        bias: argument that is added to each output channel.
        groups: argument that counts the groups which share the channels.
        output_axes: axes of the weight that number the output channels: ``(0,)`` of ``(out, in, 3, 3)``.
        grouped_axes: the same with ``groups > 1``, where axis 0 is split into groups: ``(0, 1)`` of the weight
            ``(in, out / groups, 3, 3)`` of a transposed convolution.
        input_axis: the axis of a second matrix that is summed over; all others number output channels: with -2,
            ``(0, 2)`` of experts ``(E, in, out)``.
        channel_axis: axis of the channels in data and output.
        when: argument and the value it must have for the row to hold.
        evaluation: argument that sets the mode, and its value in evaluation.
        identity: it returns its input in evaluation mode.
        decomposed: the form that other rows are decomposed to; nothing is folded into it or rounded behind it.
        in_integers: integer kernels can read its data.
        writes_codes: its integer kernel writes codes, so its output needs a grid.
        fills: arguments that fill in values: it moves where one of them is zero, which every grid holds exactly.
        flips: it transposes matrices.
        joins: all its inputs are data.
        keeps_order: it has one input, keeps the order of its numbers and repeats none, so rounding commutes with it.
        binds: its output has each element of its inputs at most once, in runs, as a binding of the file can express.
        on_codes: as a move, the runtime runs it on codes.
        sums: it adds its inputs element by element.
    """

    aten: str
    onnx: str = ""
    kind: Kind = "other"
    data: tuple[str, ...] = ("self",)
    weight: str = ""
    bias: str = ""
    groups: str = ""
    output_axes: tuple[int, ...] = (0,)
    grouped_axes: tuple[int, ...] | None = None
    input_axis: int | None = None
    channel_axis: int = -1
    when: tuple[str, Any] | None = None
    evaluation: tuple[str, bool | float] | None = None
    identity: bool = False
    decomposed: bool = False
    in_integers: bool = True
    writes_codes: bool = False
    fills: tuple[str, ...] = ()
    flips: bool = False
    joins: bool = False
    keeps_order: bool = False
    binds: bool = False
    on_codes: bool = True
    sums: bool = False

    @property
    def role(self) -> str | None:
        """What a parameter in the place of the weight is: ``"product"``, ``"recurrent"``, ``"embedding"`` or None."""
        role = "product" if self.kind == "layer" else self.kind
        return role if role in ("product", "recurrent", "embedding") else None


_layer = partial(OperatorRow, kind="layer", data=("input",), weight="weight", bias="bias")
_convolution = partial(_layer, groups="groups", channel_axis=1)
_transposed = partial(_convolution, output_axes=(1,), grouped_axes=(0, 1))
_product = partial(OperatorRow, kind="product", input_axis=-2)
_recurrent = partial(OperatorRow, kind="recurrent", data=("input",), weight="params", evaluation=("train", False))
_norm = partial(OperatorRow, data=("input",), weight="weight", bias="bias", channel_axis=1)
_dropout = partial(OperatorRow, data=("input",), evaluation=("train", False))
_move = partial(OperatorRow, kind="move")
_reshape = partial(_move, keeps_order=True, binds=True)
_clip = partial(OperatorRow, kind="clip", keeps_order=True)
_pass = partial(OperatorRow, kind="pass")

OPERATOR_TABLE: tuple[OperatorRow, ...] = (
    # Layers. The packed projections of attention, (3 E, E), are linear layers.
    _convolution("conv1d.default conv2d.default conv3d.default", "Conv", writes_codes=True),
    _convolution("convolution.default", "Conv", when=("transposed", False), decomposed=True),
    _transposed("conv_transpose1d.default conv_transpose2d.input conv_transpose3d.input", "ConvTranspose"),
    _transposed("convolution.default", "ConvTranspose", when=("transposed", True), decomposed=True),
    _layer("linear.default", "Gemm MatMul"),
    # Products of matrices, of data by data or by a weight (in, out) or (E, in, out).
    _product("mm.default bmm.default", "MatMul", data=("self", "mat2"), weight="mat2"),
    _product("matmul.default", "MatMul", data=("self", "other"), weight="other"),
    _product("addmm.default", "Gemm", data=("mat1",), weight="mat2", bias="self"),
    _product("baddbmm.default", "MatMul", data=("batch1",), weight="batch2", bias="self", in_integers=False),
    # Other readers of weights.
    _recurrent("lstm.input", "LSTM"),
    _recurrent("gru.input", "GRU"),
    _recurrent("rnn_tanh.input rnn_relu.input", "RNN"),
    OperatorRow("embedding.default", "Gather", "embedding", data=("indices",), weight="weight"),
    OperatorRow(
        "scaled_dot_product_attention.default",
        "Attention",
        "attention",
        data=("query", "key", "value"),
        evaluation=("dropout_p", 0.0),
    ),
    # Norms and dropout.
    _norm("batch_norm.default", "BatchNormalization", "batch_norm", evaluation=("training", False)),
    _norm("_native_batch_norm_legit_no_training.default", "BatchNormalization", "batch_norm", decomposed=True),
    _norm("instance_norm.default", "InstanceNormalization", "instance_norm", evaluation=("use_input_stats", False)),
    _dropout("dropout.default feature_dropout.default alpha_dropout.default", identity=True),
    _dropout("feature_alpha_dropout.default"),
    OperatorRow("rrelu.default", evaluation=("training", False)),
    OperatorRow("detach.default lift_fresh_copy.default", identity=True),
    # Moves.
    _reshape("view.default _unsafe_view.default reshape.default unflatten.int", "Reshape"),
    _reshape("flatten.using_ints", "Flatten"),
    _reshape("squeeze.default squeeze.dim squeeze.dims", "Squeeze"),
    _reshape("unsqueeze.default", "Unsqueeze"),
    _reshape("t.default transpose.int permute.default", "Transpose", flips=True),
    _reshape("clone.default contiguous.default", "Identity"),
    _reshape("alias.default", "Identity", identity=True),
    _move("slice.Tensor flip.default", "Slice", binds=True),
    _move("", "Split", binds=True),
    _move("cat.default stack.default", "Concat", data=("tensors",), joins=True, binds=True),
    _move("select.int", "Gather"),
    _move("expand.default", "Expand"),
    _move("repeat.default", "Tile"),
    _move("max_pool1d.default max_pool2d.default max_pool3d.default", "MaxPool", keeps_order=True),
    _move("pixel_shuffle.default", "DepthToSpace"),
    _move("", "SpaceToDepth"),
    _move("constant_pad_nd.default", "Pad", fills=("value",)),
    _move("pad.default", "Pad", when=("mode", "constant"), fills=("value",)),
    _move("where.self", "Where", fills=("self", "other"), on_codes=False),
    # Clips, sums and averages.
    _clip("relu.default relu_.default", "Relu"),
    _clip("relu6.default hardtanh.default clamp.default", "Clip"),
    _pass("add.Tensor", "Add Sum", data=("self", "other"), sums=True),
    _pass("mean.dim", "ReduceMean GlobalAveragePool"),
    _pass("avg_pool1d.default avg_pool2d.default avg_pool3d.default", "AveragePool"),
    _pass("adaptive_avg_pool1d.default adaptive_avg_pool2d.default _adaptive_avg_pool2d.default", "AveragePool"),
)


@dataclass(frozen=True)
class IntegerKernel:
    """How ONNX Runtime multiplies integers for an ONNX type of data and weight.

    Attributes:
        names: what its profile calls them, separated by spaces; empty where there are none.
        output_axis: axis of the output channels in the weight.
        flipped_by: attribute under which these are on the other axis of a matrix.
        rank: number of axes the weight must have, where that is fixed.
        plain: attributes -> the only value that the kernels support, which is ONNX's default.
    """

    names: str = ""
    output_axis: int = 1
    flipped_by: str = ""
    rank: int | None = None
    plain: Mapping[str, float] = field(default_factory=dict)


INTEGER_KERNELS: Mapping[str, IntegerKernel] = {
    "Conv": IntegerKernel("QLinearConv ConvInteger", output_axis=0),
    "ConvTranspose": IntegerKernel(),
    "Gemm": IntegerKernel("QGemm", flipped_by="transB", plain={"transA": 0, "alpha": 1.0, "beta": 1.0}),
    "MatMul": IntegerKernel("QLinearMatMul MatMulInteger MatMulIntegerToFloat DynamicQuantizeMatMul", rank=2),
    "LSTM": IntegerKernel("DynamicQuantizeLSTM"),
    "Attention": IntegerKernel("QAttention"),
}


def onnx_types(
    holds: Callable[[OperatorRow], object], operators: Iterable[OperatorRow] = OPERATOR_TABLE
) -> frozenset[str]:
    """Return the ONNX types of the rows for which ``holds(row)`` is true."""
    return frozenset(name for operator in operators if holds(operator) for name in operator.onnx.split())
