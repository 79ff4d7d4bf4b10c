"""Reference variables -> resource variables.

`Variable` becomes a `VarHandleOp` of the same name, `w/read` a `ReadVariableOp`,
updates their resource forms. An update keeps its name for the tensor that it gave, the
value after it; the op that updates stands beside it (`a/AssignAddVariableOp`).

A resource variable is read where its `ReadVariableOp` runs, a reference wherever it is
used (`references`). So an op that uses a variable after an update gets a read of its
own, ordered behind what that op waits for.
"""

import dataclasses
from collections.abc import Collection

from keras_metagraph.graph import op_defs
from keras_metagraph.graph.ir import AttrValue, Graph, Node, TensorName
from keras_metagraph.graph.passes import build, ref_ops
from keras_metagraph.graph.passes.references import References
from keras_metagraph.graph.passes.result import PassResult

_FLOW = {"Enter", "Switch"}
_JOINS = {"Exit", "Merge", "NextIteration"}
_NOT_REPEATED = {"CheckNumerics", "Identity", "Print"}


def resource_variables(graph: Graph, early: Collection[str] = ()) -> PassResult:
    """Replaces all reference variables of a graph and what uses them.

    Args:
        graph: What one run needs.
        early: Names of nodes that take the values before all updates that the graph
            does not order before them; the others take what a session gave them.

    Returns:
        The graph with `VarHandleOp` nodes under the names of the variables.
    """
    if not any(node.op in ref_ops.VARIABLES for node in graph.nodes.values()):
        return PassResult(graph, False)
    return PassResult(_Translation(graph, early).run(), True)


class _Translation:
    """One run of the pass."""

    def __init__(self, graph: Graph, early: Collection[str]) -> None:
        self._graph = graph
        self._references = References(graph, early)
        self._rewriter = build.Rewriter(graph)
        self._updates: dict[str, str] = {}  # name of an update -> of its resource form
        self._reads: dict[TensorName, TensorName] = {}
        self._handles: dict[str, str] = {}  # flow op -> what takes the handle along
        self._reshaped = {
            self._references.resolve(node.inputs[0]).handle.node
            for node in graph.nodes.values()
            if node.op == "Assign"
            and not _validates(node)
            and self._references.is_reference(node.inputs[0])
        }

    def run(self) -> Graph:
        nodes = list(self._graph.nodes.values())
        for node in nodes:
            if node.op in ref_ops.REF_INPUTS and self._takes_reference(node):
                form = ref_ops.RESOURCE_FORMS[node.op]
                name = self._rewriter.unique_name(f"{node.name}/{form}")
                self._updates[node.name] = name
                self._rewriter.add(Node(name, form))
            elif node.op == "Identity" and self._takes_reference(node):
                self._note_read(node)
        for node in nodes:
            self._translate(node)
        return self._rewriter.graph()

    def _takes_reference(self, node: Node) -> bool:
        return bool(node.inputs) and self._references.is_reference(node.inputs[0])

    def _note_read(self, node: Node) -> None:
        """Remembers `w/read`, for all that takes the variable itself."""
        if not node.control_inputs and node.inputs[0].node in self._graph.nodes:
            variable = self._graph.nodes[node.inputs[0].node]
            if variable.op in ref_ops.VARIABLES:
                self._reads.setdefault(node.inputs[0], TensorName(node.name))

    def _translate(self, node: Node) -> None:
        if node.op in ref_ops.VARIABLES:
            self._rewriter.replace(self._variable(node))
        elif node.name in self._updates:
            self._update(node)
        elif self._takes_reference(node) and node.op in _IN_PLACE:
            self._in_place(node)
        else:
            self._use(node)

    def _variable(self, node: Node) -> Node:
        shape = node.attrs.get("shape")
        if shape is None or node.name in self._reshaped:
            shape = build.shape_attr(None)
        name = node.attrs.get("shared_name") or node.attrs.get("var_name")
        attrs = {
            "dtype": node.attrs["dtype"],
            "shape": shape,
            "container": node.attrs.get("container", build.string_attr("")),
            "shared_name": name if name and name.s else build.string_attr(node.name),
        }
        controls = self._controls(node.control_inputs)
        return Node(node.name, "VarHandleOp", [], controls, attrs)

    def _update(self, node: Node) -> None:
        """The resource form beside the node, and a read in the node's place."""
        count = ref_ops.REF_INPUTS[node.op]
        handles, after = self._take_handles(node.inputs[:count])
        values = [self._value(node, tensor) for tensor in node.inputs[count:]]
        name = self._updates[node.name]
        if self._references.runs_always(node.name):
            after += self._early_reads(node, handles)
        form = ref_ops.RESOURCE_FORMS[node.op]
        self._rewriter.replace(
            Node(
                name,
                form,
                handles + values,
                self._controls([*node.control_inputs, *after]),
                _form_attrs(node, form),
            )
        )
        dtype = build.type_attr(build.dtype_of(node, "T"))
        read = Node(node.name, "ReadVariableOp", handles[:1], [name], {"dtype": dtype})
        self._rewriter.replace(read)

    def _early_reads(self, node: Node, handles: list[TensorName]) -> list[str]:
        """The shared reads of what `node` updates: they are for ops before it."""
        reads = (self._reads.get(handle) for handle in handles)
        return [read.node for read in reads if read is not None]

    def _in_place(self, node: Node) -> None:
        """An op that takes a reference and gives none: a read, a question, a count."""
        op, type_name = _IN_PLACE[node.op]
        if node.op in ref_ops.FLOW:
            count = 1 if node.op == "RefSwitch" else len(node.inputs)
            attrs = {**node.attrs, "T": build.type_attr(build.RESOURCE)}
        else:
            count = 1
            attrs = _form_attrs(node, op)
        if type_name:
            attrs["dtype"] = build.type_attr(build.dtype_of(node, type_name))
        handles, after = self._take_handles(node.inputs[:count])
        values = [self._value(node, tensor) for tensor in node.inputs[count:]]
        controls = self._controls([*node.control_inputs, *after])
        self._rewriter.replace(Node(node.name, op, handles + values, controls, attrs))

    def _use(self, node: Node) -> None:
        """An op that takes values: reads them where the file took a reference."""
        inputs = [self._value(node, tensor) for tensor in node.inputs]
        controls = self._controls(node.control_inputs)
        if inputs != node.inputs or controls != node.control_inputs:
            self._rewriter.replace(
                dataclasses.replace(node, inputs=inputs, control_inputs=controls)
            )

    def _controls(self, names: list[str]) -> list[str]:
        """Control inputs in the new graph; a handle need not be waited for."""
        kept = (
            self._updates.get(name, name)
            for name in names
            if self._graph.nodes[name].op not in ref_ops.VARIABLES
        )
        return list(dict.fromkeys(kept))

    def _take_handles(
        self, tensors: list[TensorName]
    ) -> tuple[list[TensorName], list[str]]:
        """Handles for reference inputs, and the updates that must have run."""
        handles, after = [], []
        for tensor in tensors:
            reference = self._references.resolve(tensor)
            handles.append(reference.handle)
            if reference.after is not None:
                after.append(reference.after)
        return handles, after

    def _value(self, node: Node, tensor: TensorName) -> TensorName:
        """What `node` takes where the file's own graph took `tensor`."""
        references = self._references
        if node.op not in _JOINS and references.updated_before(node, tensor):
            return self._late_value(node, tensor)
        if tensor.node in self._updates:
            return tensor  # an update gives the value after it under its own name
        if references.is_reference(tensor):
            return self._shared_read(references.resolve(tensor).handle)
        return tensor

    def _shared_read(self, handle: TensorName) -> TensorName:
        if handle not in self._reads:
            self._reads[handle] = self._rewriter.add(
                _read(f"{handle.node}/ReadVariableOp", handle, self._dtype(handle), [])
            )
        return self._reads[handle]

    def _dtype(self, handle: TensorName) -> AttrValue:
        """The dtype of the variable behind a handle of the file's own graph."""
        node = self._graph.nodes[handle.node]
        return build.type_attr(build.dtype_of(node, "dtype", build.dtype_of(node, "T")))

    def _late_value(self, node: Node, tensor: TensorName) -> TensorName:
        """The value of a variable, or of a view of it, when `node` runs."""
        chain = self._references.chain(tensor)
        root = chain[0][0].inputs[0] if chain else tensor
        handle = self._references.resolve(root).handle
        dtype = self._dtype(handle)
        views: list[Node] = []
        for op, index in chain:
            if op.op in _FLOW:
                if op.op == "Enter" and any(len(view.inputs) > 1 for view in views):
                    return tensor  # the shape that a view takes is outside the frame
                handle = self._handle_flow(op, handle, index)
            elif op.op not in _NOT_REPEATED:
                views.append(op)
        controls = self._controls(self._references.late_predecessors(node, tensor))
        name = f"{node.name}/ReadVariableOp"
        value = self._rewriter.add(_read(name, handle, dtype, controls))
        for view in views:
            copy = dataclasses.replace(
                view,
                name=f"{node.name}/{view.op}",
                inputs=[value, *view.inputs[1:]],
                control_inputs=[],
            )
            value = self._rewriter.add(copy)
        return value

    def _handle_flow(self, op: Node, handle: TensorName, index: int) -> TensorName:
        """Takes a handle into the frame or branch that `op` took the value to."""
        if op.name not in self._handles:
            attrs = {**op.attrs, "T": build.type_attr(build.RESOURCE)}
            if op.op == "Enter":
                attrs["is_constant"] = build.bool_attr(True)
            inputs = [handle, *op.inputs[1:]]
            controls = self._controls(op.control_inputs)
            flow = Node(f"{op.name}/handle", op.op, inputs, controls, attrs)
            self._handles[op.name] = self._rewriter.add(flow).node
        return TensorName(self._handles[op.name], index)


def _read(name: str, handle: TensorName, dtype: AttrValue, controls: list[str]) -> Node:
    return Node(name, "ReadVariableOp", [handle], controls, {"dtype": dtype})


def _validates(assign: Node) -> bool:
    """Whether an `Assign` refuses another shape; it does unless it says otherwise."""
    return "validate_shape" not in assign.attrs or assign.attrs["validate_shape"].b


def _form_attrs(node: Node, form: str) -> dict[str, AttrValue]:
    """The attributes of a node that its resource form has too."""
    definition = op_defs.op_def(form)
    known = {attr.name for attr in definition.attr} if definition else set()
    attrs = {key: value for key, value in node.attrs.items() if key in known}
    if node.op in ref_ops.TYPE_IS_DTYPE:
        attrs["dtype"] = build.type_attr(build.dtype_of(node, "T"))
        attrs.pop("validate_shape", None)
    return attrs


_IN_PLACE = {
    **{op: (form, "") for op, form in ref_ops.FLOW.items()},
    "CountUpTo": ("ResourceCountUpTo", ""),
    "DestroyTemporaryVariable": ("ReadVariableOp", "T"),
    "Identity": ("ReadVariableOp", "T"),
    "IsVariableInitialized": ("VarIsInitializedOp", ""),
}
"""Ops that take a reference as their first input and stay where they are."""
