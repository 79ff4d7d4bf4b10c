"""Replaces ops that this TensorFlow has no more, or only with other inputs.

Of the 52 core ops of TensorFlow 0.12 - 1.15 that are gone, few can stand in a model;
others stayed registered but lost their kernel or their gradient.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_metagraph.graph.ir import AttrValue, Graph, Node, TensorName
from keras_metagraph.graph.passes import build
from keras_metagraph.graph.passes.gather_tree import upgrade_gather_tree
from keras_metagraph.graph.passes.result import PassResult

_RENAMED = {
    "BatchCholesky": "Cholesky",
    "BatchCholeskyGrad": "CholeskyGrad",
    "BatchFFT": "FFT",
    "BatchFFT2D": "FFT2D",
    "BatchFFT3D": "FFT3D",
    "BatchIFFT": "IFFT",
    "BatchIFFT2D": "IFFT2D",
    "BatchIFFT3D": "IFFT3D",
    "BatchMatrixBandPart": "MatrixBandPart",
    "BatchMatrixDeterminant": "MatrixDeterminant",
    "BatchMatrixDiag": "MatrixDiag",
    "BatchMatrixDiagPart": "MatrixDiagPart",
    "BatchMatrixInverse": "MatrixInverse",
    "BatchMatrixSetDiag": "MatrixSetDiag",
    "BatchMatrixSolve": "MatrixSolve",
    "BatchMatrixSolveLs": "MatrixSolveLs",
    "BatchMatrixTriangularSolve": "MatrixTriangularSolve",
    "BatchSelfAdjointEigV2": "SelfAdjointEigV2",
    "BatchSvd": "Svd",
    "CreateVariableOp": "AssignVariableOp",
    "PlaceholderV2": "Placeholder",
}

Upgrade = Callable[[build.Rewriter, Node], None]


def upgrade_ops(graph: Graph) -> PassResult:
    """Upgrades all nodes, those of function bodies too."""
    bodies = {name: _upgrade_graph(f.graph) for name, f in graph.functions.items()}
    result = _upgrade_graph(graph)
    modified = result is not graph or any(
        body is not graph.functions[name].graph for name, body in bodies.items()
    )
    if not modified:
        return PassResult(graph, False)
    library = {
        name: dataclasses.replace(
            graph.functions[name], graph=Graph(body.nodes, producer=body.producer)
        )
        for name, body in bodies.items()
    }
    for each in (result, *bodies.values()):
        for name, function in each.functions.items():
            library.setdefault(name, dataclasses.replace(function))
    for function in library.values():
        function.graph.functions = library
    return PassResult(Graph(result.nodes, library, graph.producer), True)


def _upgrade_graph(graph: Graph) -> Graph:
    rewriter = build.Rewriter(graph)
    for node in graph.nodes.values():
        if node.op in _RENAMED:
            rewriter.replace(dataclasses.replace(node, op=_RENAMED[node.op]))
        elif node.op in _UPGRADES:
            _UPGRADES[node.op](rewriter, node)
    return rewriter.graph()


def _add_n(rewriter: build.Rewriter, node: Node) -> None:
    """`AccumulateNV2` is replaced inside a TF1 session only; it has no kernel."""
    attrs = {key: value for key, value in node.attrs.items() if key != "shape"}
    rewriter.replace(dataclasses.replace(node, op="AddN", attrs=attrs))


def _more_inputs(*count_and_value: tuple[int, int]) -> Upgrade:
    """An upgrade that appends int32 inputs: (inputs before, value) each."""

    def upgrade(rewriter: build.Rewriter, node: Node) -> None:
        inputs = list(node.inputs)
        for count, value in count_and_value:
            if len(inputs) == count:
                constant = build.const_node(
                    f"{node.name}/input_{count}",
                    value,
                    build.INT32,
                    build.frame_controls(node),
                )
                inputs.append(rewriter.add(constant))
        if len(inputs) != len(node.inputs):
            rewriter.replace(dataclasses.replace(node, inputs=inputs))

    return upgrade


def _projective_transform(rewriter: build.Rewriter, node: Node) -> None:
    """The op of contrib has the output as large as the input; the core op asks."""
    images, transforms = node.inputs
    controls = build.frame_controls(node)
    number = build.type_attr(build.INT32)
    shape = Node(f"{node.name}/shape", "Shape", [images])
    shape.attrs = {"T": node.attrs["dtype"], "out_type": number}
    begin = build.const_node(f"{node.name}/begin", [1], build.INT32, controls)
    size = build.const_node(f"{node.name}/size", [2], build.INT32, controls)
    inputs = [rewriter.add(each) for each in (shape, begin, size)]
    cut = Node(f"{node.name}/output_shape", "Slice", inputs)
    cut.attrs = {"T": number, "Index": number}
    inputs = [images, transforms, rewriter.add(cut)]
    op = "ImageProjectiveTransformV2"
    rewriter.replace(dataclasses.replace(node, op=op, inputs=inputs))


def _deleted_key(rewriter: build.Rewriter, node: Node) -> None:
    """A hash table of before 1.13 has no key for deletion; any other key will do."""
    if len(node.inputs) != 1:
        return
    empty = rewriter.source.nodes.get(node.inputs[0].node)
    if empty is None or empty.op != "Const":
        return
    key = np.asarray(tf.make_ndarray(empty.attrs["value"].tensor))
    other = (
        np.full(key.shape, b"\0keras_metagraph deleted", object)
        if key.dtype == object
        else key - np.ones_like(key)
    )
    dtype = build.dtype_of(empty, "dtype")
    constant = build.const_node(
        f"{node.name}/deleted_key", other, dtype, build.frame_controls(node)
    )
    inputs = [*node.inputs, rewriter.add(constant)]
    rewriter.replace(dataclasses.replace(node, inputs=inputs))


def _pack(rewriter: build.Rewriter, node: Node) -> None:
    """`TensorArrayPack(handle, flow)` -> a gather of all indices."""
    handle, flow = node.inputs
    indices = _all_indices(rewriter, node, handle, flow)
    rewriter.replace(
        dataclasses.replace(
            node, op="TensorArrayGather", inputs=[handle, indices, flow]
        )
    )


def _unpack(rewriter: build.Rewriter, node: Node) -> None:
    """`TensorArrayUnpack(handle, value, flow)` -> a scatter to all indices."""
    handle, value, flow = node.inputs
    dtype = node.attrs["T"]
    shape = rewriter.add(
        Node(
            f"{node.name}/shape",
            "Shape",
            [value],
            attrs={"T": dtype, "out_type": build.type_attr(build.INT32)},
        )
    )
    controls = build.frame_controls(node)
    zero = build.const_node(f"{node.name}/zero", 0, build.INT32, controls)
    first = rewriter.add(
        Node(
            f"{node.name}/size",
            "GatherV2",
            [shape, rewriter.add(zero), TensorName(zero.name)],
            attrs={
                "Tparams": build.type_attr(build.INT32),
                "Tindices": build.type_attr(build.INT32),
                "Taxis": build.type_attr(build.INT32),
            },
        )
    )
    indices = _range(rewriter, node, first)
    rewriter.replace(
        dataclasses.replace(
            node, op="TensorArrayScatter", inputs=[handle, indices, value, flow]
        )
    )


def _all_indices(
    rewriter: build.Rewriter, node: Node, handle: TensorName, flow: TensorName
) -> TensorName:
    size = Node(
        f"{node.name}/size",
        "TensorArraySize",
        [handle, flow],
        control_inputs=list(node.control_inputs),
    )
    return _range(rewriter, node, rewriter.add(size))


def _range(rewriter: build.Rewriter, node: Node, stop: TensorName) -> TensorName:
    controls = build.frame_controls(node)
    start = build.const_node(f"{node.name}/start", 0, build.INT32, controls)
    delta = build.const_node(f"{node.name}/delta", 1, build.INT32, controls)
    inputs = [rewriter.add(start), stop, rewriter.add(delta)]
    attrs = {"Tidx": build.type_attr(build.INT32)}
    return rewriter.add(Node(f"{node.name}/indices", "Range", inputs, attrs=attrs))


def _bucketize(rewriter: build.Rewriter, node: Node) -> None:
    """`BoostedTreesBucketize(values.., boundaries..)` lost its kernel in 2.x.

    A value's bucket is the first boundary not below it, or the last one; TF 1.15
    `core/kernels/boosted_trees/quantile_ops.cc`.
    """
    count = len(node.inputs) // 2
    packed = [
        _bucket(rewriter, node, index, node.inputs[index], node.inputs[count + index])
        for index in range(count)
    ]
    types = [build.INT32] * count
    attrs = {"T": build.types_attr(types)}
    rewriter.replace(
        dataclasses.replace(node, op="IdentityN", inputs=packed, attrs=attrs)
    )


def _bucket(
    rewriter: build.Rewriter,
    node: Node,
    index: int,
    values: TensorName,
    boundaries: TensorName,
) -> TensorName:
    """The buckets of one feature: `[batch]` values, `[n]` boundaries."""
    controls = build.frame_controls(node)
    number, kind = build.type_attr(build.INT32), build.type_attr(build.FLOAT)

    def add(op: str, *inputs: TensorName, **attrs: AttrValue) -> TensorName:
        name = f"{node.name}/{op}_{index}"
        return rewriter.add(Node(name, op, list(inputs), attrs=attrs))

    def const(label: str, value: int) -> TensorName:
        name = f"{node.name}/{label}_{index}"
        return rewriter.add(build.const_node(name, value, build.INT32, controls))

    axis = const("axis", 0)
    rows = [
        add("ExpandDims", t, axis, T=kind, Tdim=number) for t in (boundaries, values)
    ]
    places = add("LowerBound", *rows, T=kind, out_type=number)
    places = add("Squeeze", places, T=number, squeeze_dims=build.ints_attr([0]))
    size = add("Size", boundaries, T=kind, out_type=number)
    last = add("Sub", size, const("one", 1), T=number)
    last = add("Maximum", last, const("zero", 0), T=number)
    return add("Minimum", places, last, T=number)


_UPGRADES: dict[str, Upgrade] = {
    "AccumulateNV2": _add_n,
    "BoostedTreesBucketize": _bucketize,
    "GatherTree": upgrade_gather_tree,
    "ImageProjectiveTransform": _projective_transform,
    "EmptyTensorList": _more_inputs((1, -1)),
    "MutableDenseHashTable": _deleted_key,
    "MutableDenseHashTableV2": _deleted_key,
    "TensorArrayPack": _pack,
    "TensorArrayUnpack": _unpack,
    "TensorListGather": _more_inputs((2, -1)),
    "TensorListGetItem": _more_inputs((2, -1)),
    "TensorListPopBack": _more_inputs((1, -1)),
    "TensorListStack": _more_inputs((1, -1)),
}
