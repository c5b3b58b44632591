"""The table of operators: what compression needs to know of each (``docs/decisions/0017-one-table-of-operators.md``).

Arguments go by their names in PyTorch's schema: ``conv2d.default`` reads ``input``, ``weight``, ``bias``, ...,
``groups``. ``model.operators`` reads the table by node of a traced graph, ``runtime`` by ONNX type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    """A row of the table."""

    aten: str  # overloads of ``torch.ops.aten`` (others with ``namespace::``), separated by spaces
    onnx: str = ""  # the ONNX types they become, separated by spaces; of a move, the type that runs on codes
    kind: Kind = "other"
    # The names of arguments: data, what may be a weight, what is added to each output channel, and the number of groups
    # that share the channels.
    data: tuple[str, ...] = ("self",)
    weight: str = ""
    bias: str = ""
    groups: str = ""
    # Axes of the weight that number the output channels: (0,) of (out, in, 3, 3). With groups > 1, where axis 0 is
    # split into groups: (0, 1) of the weight (in, out / groups, 3, 3) of a transposed convolution.
    output_axes: tuple[int, ...] = (0,)
    grouped_axes: tuple[int, ...] | None = None
    # Axis of a second matrix that is summed over; all others number output channels: with -2, (0, 2) of (E, in, out).
    input_axis: int | None = None
    channel_axis: int = -1  # axis of the channels in data and output
    when: tuple[str, Any] | None = None  # argument and the value it must have for the row to hold
    evaluation: tuple[str, bool | float] | None = None  # argument that sets the mode, and its value in evaluation
    identity: bool = False  # it returns its input in evaluation mode
    decomposed: bool = False  # other rows are decomposed to it; nothing is folded into it or rounded behind it
    in_integers: bool = True  # integer kernels can read its data
    writes_codes: bool = False  # its integer kernel writes codes, so its output needs a grid
    fills: tuple[str, ...] = ()  # arguments that fill in values: a move where one is 0, which every grid holds exactly
    flips: bool = False  # it transposes matrices
    joins: bool = False  # all its inputs are data
    keeps_order: bool = False  # one input, whose numbers keep their order, none twice: rounding commutes with it
    selects: bool = False  # it selects elements of its data by indices
    binds: bool = False  # each element of its inputs at most once, in runs, as a binding of the file can express
    on_codes: bool = True  # as a move, the runtime runs it on codes
    sums: bool = False  # it adds its inputs element by element
    homogeneous: bool = False  # f(s x) = s f(x) for s > 0, for each channel by itself
    # What removing channels asks (``model.dependencies``): arguments with a number for each channel; the argument that
    # tells which axes are computed over together, or ``"spatial"``: all from 2 on; whether an output element depends on
    # the same element of each input alone, beside what PyTorch tags so; the argument that names the axis along which
    # parts are taken at fixed positions; whether the values are new and depend on no input.
    vectors: tuple[str, ...] = ()
    mixes: str = ""
    elementwise: bool = False
    cuts: str = ""
    creates: bool = False

    @property
    def role(self) -> str | None:
        """What a parameter in the place of the weight is: ``"product"``, ``"recurrent"``, ``"embedding"`` or None."""
        role = "product" if self.kind == "layer" else self.kind
        return role if role in ("product", "recurrent", "embedding") else None


_layer = partial(OperatorRow, kind="layer", data=("input",), weight="weight", bias="bias")
_convolution = partial(_layer, groups="groups", channel_axis=1)
_transposed = partial(_convolution, output_axes=(1,), grouped_axes=(0, 1))
_product = partial(OperatorRow, kind="product", input_axis=-2)
_floating = partial(OperatorRow, kind="product", in_integers=False)
_recurrent = partial(OperatorRow, kind="recurrent", data=("input",), weight="params", evaluation=("train", False))
_attention = partial(OperatorRow, kind="attention", data=("query", "key", "value"))
_statistics = ("weight", "bias", "running_mean", "running_var")
_norm = partial(OperatorRow, data=("input",), weight="weight", bias="bias", channel_axis=1, vectors=_statistics)
_dropout = partial(OperatorRow, data=("input",), evaluation=("train", False), elementwise=True)
_move = partial(OperatorRow, kind="move")
_reshape = partial(_move, keeps_order=True, binds=True)
_clip = partial(OperatorRow, kind="clip", keeps_order=True)
_cut = partial(_move, binds=True)
_pass = partial(OperatorRow, kind="pass")
_created = partial(OperatorRow, data=(), creates=True)
_over_axes = partial(OperatorRow, mixes="dim")

OPERATOR_TABLE: tuple[OperatorRow, ...] = (
    # Layers. The packed projections of attention, (3 E, E), are linear layers.
    _convolution("conv1d.default conv2d.default conv3d.default", "Conv", writes_codes=True),
    _convolution("conv1d.padding conv2d.padding conv3d.padding", "Conv", writes_codes=True),
    _convolution("convolution.default", "Conv", when=("transposed", False), decomposed=True),
    _transposed("conv_transpose1d.default conv_transpose2d.input conv_transpose3d.input", "ConvTranspose"),
    _transposed("convolution.default", "ConvTranspose", when=("transposed", True), decomposed=True),
    _layer("linear.default", "Gemm MatMul"),
    # Products of matrices, of data by data or by a weight (in, out) or (E, in, out).
    _product("mm.default bmm.default", "MatMul", data=("self", "mat2"), weight="mat2"),
    _product("matmul.default", "MatMul", data=("self", "other"), weight="other"),
    _product("addmm.default", "Gemm", data=("mat1",), weight="mat2", bias="self"),
    _product("baddbmm.default", "MatMul", data=("batch1",), weight="batch2", bias="self", in_integers=False),
    # ONNX computes these by other operators.
    _product(
        "bilinear.default", data=("input1", "input2"), weight="weight", bias="bias", input_axis=None, in_integers=False
    ),
    _product("einsum.default", data=("tensors",), input_axis=None, in_integers=False),
    # Other readers of weights.
    _recurrent("lstm.input attar::packed_lstm.default", "LSTM"),
    _recurrent("gru.input attar::packed_gru.default", "GRU"),
    _recurrent("rnn_tanh.input rnn_relu.input attar::packed_rnn_tanh.default attar::packed_rnn_relu.default", "RNN"),
    OperatorRow("embedding.default", "Gather", "embedding", data=("indices",), weight="weight"),
    _attention("scaled_dot_product_attention.default", "Attention", evaluation=("dropout_p", 0.0)),
    # Norms and dropout.
    _norm("batch_norm.default", "BatchNormalization", "batch_norm", evaluation=("training", False)),
    _norm("_native_batch_norm_legit_no_training.default", "BatchNormalization", "batch_norm", decomposed=True),
    _norm(
        "instance_norm.default",
        "InstanceNormalization",
        "instance_norm",
        evaluation=("use_input_stats", False),
        mixes="spatial",
    ),
    _dropout("dropout.default feature_dropout.default alpha_dropout.default", identity=True),
    _dropout("dropout_.default feature_dropout_.default alpha_dropout_.default", data=("self",), identity=True),
    _dropout("feature_alpha_dropout.default"),
    _dropout("feature_alpha_dropout_.default", data=("self",)),
    OperatorRow("rrelu.default rrelu_.default", evaluation=("training", False), elementwise=True),
    OperatorRow("detach.default detach_.default lift_fresh_copy.default", identity=True),
    # Moves.
    _reshape("view.default _unsafe_view.default reshape.default unflatten.int", "Reshape"),
    _reshape("flatten.using_ints", "Flatten"),
    _reshape("squeeze.default squeeze.dim squeeze.dims", "Squeeze"),
    _reshape("unsqueeze.default", "Unsqueeze"),
    _reshape("t.default transpose.int permute.default", "Transpose", flips=True),
    _reshape("movedim.int movedim.intlist swapaxes.default numpy_T.default mT.default", "Transpose"),
    _reshape("clone.default contiguous.default", "Identity"),
    _reshape("alias.default", "Identity", identity=True),
    _cut("slice.Tensor", "Slice", cuts="dim"),
    _cut("flip.default", "Slice"),
    _cut("split.Tensor split_with_sizes.default chunk.default unbind.int", "Split", cuts="dim"),
    _move("cat.default stack.default", "Concat", data=("tensors",), joins=True, binds=True),
    _move("select.int", "Gather", cuts="dim"),
    _move("narrow.default", "Slice", cuts="dim"),
    OperatorRow("index.Tensor index_select.default", selects=True),
    _move("expand.default", "Expand"),
    _move("repeat.default", "Tile"),
    _move(
        "max_pool1d.default max_pool2d.default max_pool3d.default",
        "MaxPool",
        keeps_order=True,
        homogeneous=True,
        mixes="spatial",
    ),
    _move("pixel_shuffle.default", "DepthToSpace"),
    _move("", "SpaceToDepth"),
    _move("constant_pad_nd.default", "Pad", fills=("value",), homogeneous=True),
    _move("pad.default", "Pad", when=("mode", "constant"), fills=("value",), homogeneous=True),
    _move("where.self", "Where", fills=("self", "other"), on_codes=False),
    # Clips, sums and averages.
    _clip("relu.default relu_.default", "Relu", homogeneous=True),
    _clip("relu6.default hardtanh.default clamp.default", "Clip"),
    _pass("add.Tensor", "Add Sum", data=("self", "other"), sums=True),
    _pass("mean.dim", "ReduceMean GlobalAveragePool", homogeneous=True, mixes="dim"),
    _pass("avg_pool1d.default avg_pool2d.default avg_pool3d.default", "AveragePool", homogeneous=True, mixes="spatial"),
    _pass(
        "adaptive_avg_pool1d.default adaptive_avg_pool2d.default adaptive_avg_pool3d.default "
        "_adaptive_avg_pool2d.default",
        "AveragePool",
        homogeneous=True,
        mixes="spatial",
    ),
    # A value as products read it, with a grid of its own; ``Identity`` in ONNX, where that is a move otherwise.
    _pass("attar::reading.default", homogeneous=True, elementwise=True),
    # Known for the sake of channels alone.
    OperatorRow("leaky_relu.default leaky_relu_.default", homogeneous=True),
    OperatorRow("prelu.default", vectors=("weight",), channel_axis=1, elementwise=True, homogeneous=True),
    OperatorRow("hardswish.default hardswish_.default to.dtype to.device to.dtype_layout", elementwise=True),
    OperatorRow("type_as.default expand_as.default masked_fill.Tensor where.ScalarOther", elementwise=True),
    OperatorRow("layer_norm.default rms_norm.default", data=("input",), mixes="normalized_shape"),
    OperatorRow("group_norm.default", data=("input",), mixes="num_groups", vectors=("weight", "bias"), channel_axis=1),
    _over_axes(
        "softmax.int log_softmax.int sum.dim_IntList amax.default amin.default logsumexp.default cumsum.default"
    ),
    _over_axes("linalg_vector_norm.default norm.ScalarOpt_dim std.correction std.dim var.correction var.dim"),
    _over_axes("max.dim min.dim argmax.default argmin.default"),
    OperatorRow("roll.default", mixes="dims"),
    OperatorRow("pad.default", when=("mode", "reflect"), mixes="spatial"),
    OperatorRow("pad.default", when=("mode", "replicate"), mixes="spatial"),
    OperatorRow("pad.default", when=("mode", "circular"), mixes="spatial"),
    OperatorRow(
        "upsample_nearest1d.vec upsample_nearest2d.vec upsample_nearest3d.vec", data=("input",), mixes="spatial"
    ),
    OperatorRow(
        "upsample_bilinear2d.vec upsample_bicubic2d.vec upsample_trilinear3d.vec", data=("input",), mixes="spatial"
    ),
    OperatorRow("adaptive_max_pool1d.default adaptive_max_pool2d.default", mixes="spatial"),
    _created("zeros.default ones.default full.default new_zeros.default new_ones.default new_full.default"),
    _created("zeros_like.default ones_like.default full_like.default"),
)


@dataclass(frozen=True)
class IntegerKernel:
    """How ONNX Runtime multiplies integers for an ONNX type of data and weight."""

    names: str = ""  # what its profile calls the kernels, separated by spaces; empty if there are none
    output_axis: int = 1  # axis of the output channels in the weight
    flipped_by: str = ""  # attribute that moves them to the other axis of a matrix
    rank: int | None = None  # number of axes the weight must have, if fixed
    plain: Mapping[str, float] = field(default_factory=dict)  # attribute -> the one value the kernels support
    dynamic: bool = False  # a kernel quantizes its data as it reads them

    def refusal(self, onnx_type: str, attributes: Mapping[str, Any], rank: int) -> str:
        """Return why no kernel takes a node of ``onnx_type`` with these attributes and a weight of ``rank`` axes."""
        if not self.names:
            return f"ONNX Runtime has no integer kernel for {onnx_type}"
        if any(attributes.get(each, value) != value for each, value in self.plain.items()):
            return f"integer kernels know no factors and no transposed input of {onnx_type}"
        return "its weight is no matrix" if self.rank not in (None, rank) else ""

    def axis(self, attributes: Mapping[str, Any]) -> int:
        """Return the axis of the output channels in the weight of a node with these attributes."""
        return 1 - self.output_axis if attributes.get(self.flipped_by, 0) else self.output_axis


_DYNAMIC = "MatMulInteger MatMulIntegerToFloat DynamicQuantizeMatMul"
INTEGER_KERNELS: Mapping[str, IntegerKernel] = {
    "Conv": IntegerKernel("QLinearConv ConvInteger", output_axis=0),
    "ConvTranspose": IntegerKernel(),
    "Gemm": IntegerKernel(
        "QGemm " + _DYNAMIC, flipped_by="transB", plain={"transA": 0, "alpha": 1.0, "beta": 1.0}, dynamic=True
    ),
    "MatMul": IntegerKernel("QLinearMatMul " + _DYNAMIC, rank=2, dynamic=True),
    "LSTM": IntegerKernel("DynamicQuantizeLSTM " + _DYNAMIC, dynamic=True),
    "GRU": IntegerKernel(_DYNAMIC, dynamic=True),
    "RNN": IntegerKernel(),
    "Attention": IntegerKernel("QAttention"),
}

#: Least size by which a row is divided before it is quantized; of rows of zeros.
LEAST_SIZE = 2.0**-100


def onnx_types(holds: Callable[[OperatorRow], object]) -> frozenset[str]:
    """Return the ONNX types of the rows for which ``holds(row)`` is true."""
    return frozenset(name for row in OPERATOR_TABLE if holds(row) for name in row.onnx.split())
