"""What is asked about a graph again and again while its interface is inferred."""

import functools
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import tensorflow as tf

from keras_metagraph.audit.tensors import decode_tensor, tensor_problem
from keras_metagraph.errors import SignatureError
from keras_metagraph.graph.ir import Graph, Node, TensorName
from keras_metagraph.graph.specs import tensor_spec
from keras_metagraph.graph.variables import GraphVariable

# Ops whose value tells the shape of their input only.
SHAPE_OPS = frozenset(
    {"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike", "TensorArraySizeV3"}
)
# Ops that pass a value on as it is.
FORWARDING_OPS = frozenset(
    {
        "Identity",
        "RefIdentity",
        "Enter",
        "RefEnter",
        "Switch",
        "RefSwitch",
        "ReadVariableOp",
        "StopGradient",
        "PreventGradient",
        "CheckNumerics",
    }
)
_SUMMARY_SUFFIX = "Summary"
_SUMMARY_OPS = frozenset(
    {"ScalarSummaryV2", "TensorSummaryV2", "WriteSummary", "AudioSummaryV2", "Print"}
)
_SAVER_OPS = frozenset(
    {
        "Save",
        "SaveV2",
        "SaveSlices",
        "Restore",
        "RestoreV2",
        "RestoreSlice",
        "ShardedFilename",
        "ShardedFilespec",
        "MergeV2Checkpoints",
    }
)
_WRITE_PREFIXES = (
    "Assign",
    "Apply",
    "SparseApply",
    "ResourceApply",
    "ResourceSparseApply",
    "ResourceScatter",
    "Scatter",
)
_NO_WRITES = frozenset({"ScatterNd", "ScatterNdNonAliasingAdd"})
_RETURNING_WRITES = frozenset(
    {"Assign", "AssignAdd", "AssignSub", "ScatterAdd", "ScatterSub"}
)
APPLY_PREFIXES = ("Apply", "SparseApply", "ResourceApply", "ResourceSparseApply")


class GraphAnalysis:
    """A graph with the facts that inference needs, each computed once.

    Args:
        graph: A graph with repaired attributes.
        variables: Its variables by node name.
    """

    def __init__(self, graph: Graph, variables: Mapping[str, GraphVariable]) -> None:
        self.graph = graph
        self.variables = variables
        self._specs: dict[TensorName, tf.TensorSpec | None] = {}

    @functools.cached_property
    def users(self) -> dict[str, list[Node]]:
        """Nodes that wait for each node, by data or control."""
        return self.graph.consumers()

    @functools.cached_property
    def tensor_users(self) -> dict[TensorName, list[Node]]:
        """Nodes that take each tensor; one entry per edge."""
        users: dict[TensorName, list[Node]] = {}
        for node in self.graph.nodes.values():
            for tensor in node.inputs:
                users.setdefault(tensor, []).append(node)
        return users

    @functools.cached_property
    def output_tensors(self) -> dict[str, list[TensorName]]:
        """The outputs of each node that something takes; the first one at least."""
        outputs = {name: [TensorName(name)] for name in self.graph.nodes}
        for tensor in self.tensor_users:
            if tensor.index and tensor.node in outputs:
                outputs[tensor.node].append(tensor)
        return {name: sorted(tensors) for name, tensors in outputs.items()}

    @functools.cached_property
    def trained(self) -> frozenset[str]:
        """Names of the trainable variables; of all if none is marked."""
        marked = {name for name, v in self.variables.items() if v.trainable}
        return frozenset(marked or self.variables)

    @functools.cached_property
    def writes(self) -> dict[str, str]:
        """The variable that each node writes, for those that write one."""
        found = {}
        for node in self.graph.nodes.values():
            if node.op.startswith(_WRITE_PREFIXES) and node.op not in _NO_WRITES:
                variable = self.variable_behind(node.inputs[0]) if node.inputs else None
                if variable is not None:
                    found[node.name] = variable
        return found

    @functools.cached_property
    def saver_nodes(self) -> frozenset[str]:
        """Nodes that save and restore checkpoints, and what hangs on them alone."""
        seeds = [n.name for n in self.graph.nodes.values() if n.op in _SAVER_OPS]
        return frozenset(self.reach(seeds, control=True))

    @functools.cached_property
    def in_frames(self) -> frozenset[str]:
        """Nodes inside v1 while loops, whose tensors cannot be fetched."""
        seeds = [
            node.name
            for node in self.graph.nodes.values()
            if node.op in ("Enter", "RefEnter")
        ]
        return frozenset(self.reach(seeds, stop=lambda node: node.op.endswith("Exit")))

    @functools.cached_property
    def in_branches(self) -> frozenset[str]:
        """Nodes inside v1 conditionals, whose tensors may be dead."""
        seeds = [
            node.name
            for node in self.graph.nodes.values()
            if node.op in ("Switch", "RefSwitch") and node.name not in self.in_frames
        ]
        return frozenset(
            self.reach(seeds, control=True, stop=lambda node: node.op.endswith("Merge"))
        )

    def is_summary(self, node: Node) -> bool:
        """Whether a node writes or merges summaries, or prints."""
        return node.op.endswith(_SUMMARY_SUFFIX) or node.op in _SUMMARY_OPS

    def is_write(self, node: Node) -> bool:
        """Whether a node writes a variable."""
        return node.name in self.writes

    def variable_behind(self, tensor: TensorName) -> str | None:
        """The variable that a tensor is, or reads; `None` if it is computed."""
        for _ in range(len(self.graph.nodes)):
            if tensor.node in self.variables:
                return tensor.node
            node = self.graph.nodes.get(tensor.node)
            if node is None or not node.inputs:
                return None
            if node.op not in FORWARDING_OPS and node.name not in self._chained_writes:
                return None
            tensor = node.inputs[0]
        return None

    @functools.cached_property
    def _chained_writes(self) -> frozenset[str]:
        """Writes of reference variables return the variable again."""
        return frozenset(
            node.name
            for node in self.graph.nodes.values()
            if node.op in _RETURNING_WRITES
        )

    def source(self, tensor: TensorName) -> TensorName:
        """Follows a tensor back through ops that only pass it on."""
        for _ in range(len(self.graph.nodes)):
            node = self.graph.nodes.get(tensor.node)
            if node is None or node.op not in FORWARDING_OPS or not node.inputs:
                return tensor
            tensor = node.inputs[0]
        return tensor

    def constant(self, tensor: TensorName) -> Any:
        """The value of a scalar constant as plain Python; `None` if it is not one."""
        proto = self._constant_proto(tensor)
        if proto is None or proto.tensor_shape.dim or tensor_problem(proto):
            return None
        value = decode_tensor(proto)
        if value.dtype.kind == "f":
            return float(str(value))  # 0.3, not 0.30000001192092896
        return value.item() if value.dtype.kind in "biu" else None

    def constant_array(self, tensor: TensorName) -> Any:
        """The value of a constant; `None` if it is not one."""
        proto = self._constant_proto(tensor)
        return None if proto is None or tensor_problem(proto) else decode_tensor(proto)

    def _constant_proto(self, tensor: TensorName) -> Any:
        node = self.graph.nodes.get(self.source(tensor).node)
        if node is None or node.op != "Const" or "value" not in node.attrs:
            return None
        return node.attrs["value"].tensor

    def dtype(self, tensor: TensorName) -> tf.DType | None:
        """The dtype of a tensor, where the file tells."""
        spec = self._spec(tensor)
        return None if spec is None else spec.dtype.base_dtype

    def rank(self, tensor: TensorName) -> int | None:
        """The rank of a tensor, where the file tells."""
        spec = self._spec(tensor)
        rank: int | None = None if spec is None else spec.shape.rank
        return rank

    def _spec(self, tensor: TensorName) -> tf.TensorSpec | None:
        if tensor not in self._specs:
            try:
                self._specs[tensor] = tensor_spec(self.graph, tensor)
            except (SignatureError, TypeError, ValueError):
                self._specs[tensor] = None  # the file does not tell, or says nonsense
        return self._specs[tensor]

    def reach(
        self,
        seeds: Iterable[str],
        *,
        control: bool = False,
        stop: Callable[[Node], bool] | None = None,
        within: Iterable[str] | None = None,
    ) -> set[str]:
        """Nodes that depend on `seeds`, themselves included.

        Args:
            seeds: Names of nodes.
            control: Whether control edges count, beside data.
            stop: Nodes that are neither taken nor followed.
            within: If given, only these nodes are followed.

        Returns:
            Names of nodes.
        """
        followers = self.users if control else self._data_users
        allowed = None if within is None else set(within)
        seen = set(seeds)
        queue = deque(seen)
        while queue:
            for user in followers.get(queue.popleft(), ()):
                if user.name in seen or (stop is not None and stop(user)):
                    continue
                if allowed is None or user.name in allowed:
                    seen.add(user.name)
                    queue.append(user.name)
        return seen

    def ancestors(
        self, roots: Iterable[TensorName], fed: Iterable[TensorName] = ()
    ) -> set[str]:
        """Nodes that must run for `roots`, where the tensors `fed` have values."""
        fed = set(fed)
        queue = deque(root for root in roots if root not in fed)
        seen = {root.node for root in queue}
        while queue:
            node = self.graph.nodes.get(queue.popleft().node)
            if node is None:
                continue
            before = [tensor for tensor in node.inputs if tensor not in fed]
            before += [TensorName(name) for name in node.control_inputs]
            for tensor in before:
                if tensor.node not in seen:
                    seen.add(tensor.node)
                    queue.append(tensor)
        return seen & self.graph.nodes.keys()

    @functools.cached_property
    def _data_users(self) -> dict[str, list[Node]]:
        users: dict[str, list[Node]] = {}
        for tensor, nodes in self.tensor_users.items():
            users.setdefault(tensor.node, []).extend(nodes)
        return users
