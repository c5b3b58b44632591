"""Three small models packed by hand: numpy weights, graphs made with ``onnx.helper``."""

from dataclasses import replace

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from attar._src.artifact.contents import Contents, GraphContents
from attar._src.artifact.graph.integer_biases import bias_steps
from attar._src.artifact.manifest import Activation, Binding, Fold, Part, Port, Preprocessing
from attar._src.core.float16 import from_half, to_half
from attar._src.core.numbers.steps import from_steps, step_sizes
from attar._src.core.scheme import PerBucket, PerChannel, PerGroup, PerTensor, Scheme
from attar._src.core.tensors import Codebook, Dense, Sparse, round_to_grid


def quantized(rng, shape, bits=4, symmetric=True, granularity=None):
    """Random weights on a grid."""
    scheme = Scheme(bits=bits, symmetric=symmetric, granularity=granularity or PerChannel())
    count = scheme.granularity.count(shape)
    scale = rng.uniform(0.01, 0.1, count).astype(np.float32)
    zero_point = None if symmetric else rng.integers(0, scheme.qmax + 1, count).astype(np.uint8)
    return round_to_grid(rng.normal(scale=0.2, size=shape).astype(np.float32), scale, zero_point, scheme)


def codebook(rng, shape, levels=5, granularity=None):
    """Random codes into a few points."""
    granularity = granularity or PerBucket(size=8)
    count = granularity.count(shape)
    return Codebook(
        rng.integers(0, levels, shape).astype(np.uint8),
        np.sort(rng.normal(size=levels)).astype(np.float32),
        rng.uniform(0.5, 1, count).astype(np.float32),
        rng.normal(size=count).astype(np.float32),
        granularity,
    )


def sparse(rng, shape, values=None):
    """A random mask over values."""
    mask = rng.random(shape) < 0.3
    count = int(mask.sum())
    return Sparse(mask, values(count) if values else codebook(rng, (count,), granularity=PerTensor()))


def narrowed(tensor, dtype):
    """A tensor with its scales, and offsets, rounded to a type of 16 bits."""
    names = [name for name in ("scale", "offset") if hasattr(tensor, name)]
    rounded = {name: from_half(to_half(getattr(tensor, name), dtype), dtype) for name in names}
    return replace(tensor, **rounded, scale_dtype=dtype)


def dense(rng, *shape):
    """Random float32 weights."""
    return Dense(rng.normal(size=shape).astype(np.float32))


def model_of(nodes, inputs, outputs, constants=(), opset=18):
    """A model of these nodes; constants are name -> array."""
    info = [
        helper.make_tensor_value_info(
            port.name, {"f32": TensorProto.FLOAT, "i64": TensorProto.INT64}[port.dtype], port.shape
        )
        for port in (*inputs, *outputs)
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        info[: len(inputs)],
        info[len(inputs) :],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in dict(constants).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def conv_net():
    """Convolution, ReLU, pooling and a linear layer, with quantized activations."""
    rng = np.random.default_rng(1)
    inputs = (Port(name="x", dtype="f32", shape=("batch", 3, 8, 8), example=(2, 3, 8, 8)),)
    outputs = (Port(name="y", dtype="f32", shape=("batch", 10)),)
    model = model_of(
        [
            helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["conv"], "conv", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["conv"], ["relu"], "relu"),
            helper.make_node("MaxPool", ["relu"], ["pool"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
            helper.make_node("Flatten", ["pool"], ["flat"], "flatten"),
            helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], ["y"], "fc"),
        ],
        inputs,
        outputs,
    )
    graph = GraphContents(
        name="main",
        model=model,
        bindings=(
            Binding(to="conv.weight"),
            Binding(to="conv.bias"),
            Binding(to="fc.weight", permute=(1, 0)),
            Binding(to="fc.bias"),
        ),
        inputs=inputs,
        outputs=outputs,
        activations=(
            Activation(value="x", scale=0.03, zero_point=128),
            Activation(value="relu", scale=float(np.float32(0.1))),
            Activation(value="pool", bits=4, scale=0.5, zero_point=3),
        ),
    )
    return Contents(
        tensors={
            "conv.weight": quantized(rng, (4, 3, 3, 3)),
            "conv.bias": dense(rng, 4),
            "fc.weight": quantized(rng, (10, 64), bits=3),
            "fc.bias": dense(rng, 10),
        },
        graphs=(graph,),
        parameters=4 * 27 + 4 + 640 + 10,
        folds=(Fold(batch_norm="bn", into="conv"),),
        preprocessing=Preprocessing(
            name="pixels", layout="NCHW", scale=1 / 255, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2)
        ),
        task="classification",
        class_names=tuple("0123456789"),
        metric="accuracy",
        recipe={"stages": [{"kind": "quantize", "bits": 4}], "seed": 0},
        versions={"attar": "0.1.0"},
        licence="made by hand",
    )


def lstm():
    """Embedding, LSTM and a linear layer on its last step; PyTorch's gates i, f, g, o become ONNX's i, o, f, g."""
    rng = np.random.default_rng(2)
    hidden, width = 6, 5
    inputs = (Port(name="tokens", dtype="i64", shape=("batch", "time"), example=(2, 5)),)
    outputs = (Port(name="y", dtype="f32", shape=("batch", 3)),)
    model = model_of(
        [
            helper.make_node("Shape", ["tokens"], ["batch"], "size", start=0, end=1),
            helper.make_node("Concat", ["one", "batch", "hidden"], ["state"], "state", axis=0),
            helper.make_node("Expand", ["zero", "state"], ["start"], "start"),
            helper.make_node("Transpose", ["tokens"], ["turned"], "turn", perm=[1, 0]),
            helper.make_node("Gather", ["embed.weight", "turned"], ["embedded"], "embed"),
            helper.make_node(
                "LSTM", ["embedded", "W", "R", "B", "", "start", "start"], ["steps"], "lstm", hidden_size=hidden
            ),
            helper.make_node("Gather", ["steps", "last"], ["both"], "last", axis=0),
            helper.make_node("Squeeze", ["both", "axis"], ["final"], "final"),
            helper.make_node("Gemm", ["final", "head.weight"], ["y"], "head", transB=1),
        ],
        inputs,
        outputs,
        {
            "one": np.array([1]),
            "hidden": np.array([hidden]),
            "zero": np.float32(0),
            "last": np.array(-1),
            "axis": np.array([0]),
        },
    )
    tensors = {
        "embed.weight": quantized(rng, (11, width), bits=8),
        "lstm.weight_ih_l0": quantized(rng, (4 * hidden, width), bits=4),
        "lstm.weight_hh_l0": quantized(
            rng, (4 * hidden, hidden), bits=4, symmetric=False, granularity=PerGroup(size=4)
        ),
        "lstm.bias_ih_l0": dense(rng, 4 * hidden),
        "lstm.bias_hh_l0": dense(rng, 4 * hidden),
        "head.weight": codebook(rng, (3, hidden)),
    }

    def gates(*names):
        parts = []
        for name in names:
            run = np.prod(tensors[name].shape) // 4
            parts += [Part(tensor=name, start=int(gate * run), stop=int((gate + 1) * run)) for gate in (0, 3, 1, 2)]
        return tuple(parts)

    graph = GraphContents(
        name="main",
        model=model,
        bindings=(
            Binding(to="embed.weight"),
            Binding(to="W", parts=gates("lstm.weight_ih_l0"), shape=(1, 4 * hidden, width)),
            Binding(to="R", parts=gates("lstm.weight_hh_l0"), shape=(1, 4 * hidden, hidden)),
            Binding(to="B", parts=gates("lstm.bias_ih_l0", "lstm.bias_hh_l0"), shape=(1, 8 * hidden)),
            Binding(to="head.weight"),
        ),
        inputs=inputs,
        outputs=outputs,
    )
    parameters = sum(int(np.prod(tensor.shape)) for tensor in tensors.values())
    return Contents(tensors=tensors, graphs=(graph,), parameters=parameters)


def transformer():
    """One attention layer and one feed-forward layer between an embedding and the same embedding, turned."""
    rng = np.random.default_rng(3)
    vocabulary, width, heads = 20, 8, 2
    inputs = (Port(name="tokens", dtype="i64", shape=("batch", "time"), example=(2, 5)),)
    outputs = (Port(name="y", dtype="f32", shape=("batch", "time", vocabulary)),)
    node = helper.make_node
    nodes = [node("Gather", ["embed", "tokens"], ["x"], "embed")]
    for name in "qkv":
        nodes += [
            node("MatMul", ["x", f"{name}.weight"], [f"{name}_flat"], name),
            node("Reshape", [f"{name}_flat", "heads"], [f"{name}_heads"], f"{name}_heads"),
            node(
                "Transpose",
                [f"{name}_heads"],
                [f"{name}_t"],
                f"{name}_t",
                perm=[0, 2, 3, 1] if name == "k" else [0, 2, 1, 3],
            ),
        ]
    nodes += [
        node("MatMul", ["q_t", "k_t"], ["scores"], "scores"),
        node("Mul", ["scores", "scale"], ["scaled"], "scaled"),
        node("Softmax", ["scaled"], ["weights"], "softmax"),
        node("MatMul", ["weights", "v_t"], ["mixed"], "mixed"),
        node("Transpose", ["mixed"], ["mixed_t"], "mixed_t", perm=[0, 2, 1, 3]),
        node("Shape", ["x"], ["size"], "size"),
        node("Reshape", ["mixed_t", "size"], ["joined"], "joined"),
        node("Add", ["x", "joined"], ["residual"], "residual"),
        node("LayerNormalization", ["residual", "norm.weight", "norm.bias"], ["normed"], "norm"),
        node("MatMul", ["normed", "up"], ["wide"], "up"),
        node("Gelu", ["wide"], ["active"], "gelu"),
        node("MatMul", ["active", "down"], ["narrow"], "down"),
        node("Add", ["normed", "narrow"], ["out"], "out"),
        node("MatMul", ["out", "head"], ["y"], "head"),
    ]
    constants = {"heads": np.array([0, 0, heads, width // heads]), "scale": np.float32((width / heads) ** -0.5)}
    tensors = {
        "embed.weight": quantized(rng, (vocabulary, width), bits=8),
        **{f"{name}.weight": quantized(rng, (width, width), granularity=PerTensor()) for name in "qkv"},
        "norm.weight": Dense(np.ones(width, np.float32)),
        "norm.bias": Dense(np.zeros(width, np.float32)),
        "up.weight": sparse(rng, (2 * width, width)),
        "down.weight": codebook(rng, (width, 2 * width)),
    }
    graph = GraphContents(
        name="main",
        model=model_of(nodes, inputs, outputs, constants, opset=20),
        bindings=(
            Binding(to="embed", parts=(Part(tensor="embed.weight"),)),
            Binding(to="head", parts=(Part(tensor="head.weight"),), permute=(1, 0)),
            *(Binding(to=f"{name}.weight", permute=(1, 0)) for name in "qkv"),
            Binding(to="norm.weight"),
            Binding(to="norm.bias"),
            Binding(to="up", parts=(Part(tensor="up.weight"),), permute=(1, 0)),
            Binding(to="down", parts=(Part(tensor="down.weight"),), permute=(1, 0)),
        ),
        inputs=inputs,
        outputs=outputs,
    )
    parameters = sum(int(np.prod(tensor.shape)) for tensor in tensors.values())
    return Contents(tensors=tensors, graphs=(graph,), parameters=parameters, aliases={"head.weight": "embed.weight"})


def dynamic_lstm():
    """The LSTM with a dynamic sequence and state, whose weights no integer kernel reads."""
    made = lstm()
    return replace(made, graphs=(replace(made.graphs[0], dynamic=("lstm",)),))


def dynamic_transformer():
    """The transformer with dynamic products: three of one value, one with a codebook, one with a tied table."""
    made = transformer()
    return replace(made, graphs=(replace(made.graphs[0], dynamic=("q", "k", "v", "down", "head")),))


def relu(tensors, **fields):
    """A graph of one node that needs no weights, beside any tensors."""
    inputs = (Port(name="x", dtype="f32", shape=("batch", 4), example=(2, 4)),)
    outputs = (Port(name="y", dtype="f32", shape=("batch", 4)),)
    model = model_of([helper.make_node("Relu", ["x"], ["y"], "relu")], inputs, outputs)
    graph = GraphContents(name="main", model=model, bindings=(), inputs=inputs, outputs=outputs)
    return Contents(tensors=tensors, graphs=(graph,), parameters=fields.pop("parameters", 0), **fields)


def on_steps():
    """The convolutional net with 32 channels, whose bias is in whole steps, and an asymmetric tensor beside it."""
    net, rng = conv_net(), np.random.default_rng(5)
    tensors = {
        "conv.weight": quantized(rng, (32, 3, 3, 3), bits=8),
        "conv.bias": Dense(np.zeros(32, np.float32)),
        "fc.weight": quantized(rng, (10, 512), bits=3),
        "fc.bias": dense(rng, 10),
        "extra": quantized(rng, (32, 5), symmetric=False),
    }
    ((name, each),) = bias_steps(net.graphs, tensors).items()
    sizes = step_sizes(each.input_scale, tensors[each.weight].scale)
    tensors[name] = Dense(from_steps(rng.integers(-3000, 3000, 32), sizes))
    return replace(net, tensors=tensors)
