"""Which ops may run."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph.audit import Limits, audit_ops, require_safe
from keras_metagraph.audit.policy import REASONS, UNKNOWN, category, known_ops
from keras_metagraph.errors import UnsupportedOpError, UntrustedContentError
from keras_metagraph.formats import open_export
from keras_metagraph.graph.from_proto import graph_from_proto
from keras_metagraph.graph.ir import Function, Graph, Node, TensorName
from oracle.references import FIXTURES, exports

v1 = tf.compat.v1


def _attr(**value):
    return v1.AttrValue(**value)


def _constant(name, value):
    attrs = {"value": _attr(tensor=tf.make_tensor_proto(value))}
    return Node(name, "Const", attrs=attrs)


def _graph(*nodes, **bodies):
    graph = Graph()
    for node in nodes:
        graph.add(node)
    for name, body in bodies.items():
        function = Graph(functions=graph.functions)
        for node in body:
            function.add(node)
        graph.functions[name] = Function(name, [], [], function)
    return graph


def _call(name, function, op="PartitionedCall"):
    node = Node(name, op, attrs={"f": _attr()})
    node.attrs["f"].func.name = function
    return node


# Ops that TensorFlow runs while it imports a graph, or that reach beyond it.
HOSTILE = [
    "ReadFile", "WriteFile", "MatchingFiles", "GenerateVocabRemapping", "PyFunc",
    "PyFuncStateless", "EagerPyFunc", "DebugIdentity", "DebugIdentityV2",
    "RegisterDataset", "RegisterDatasetV2", "SnapshotChunkDataset", "DatasetFromGraph",
    "XlaCallModule", "MlirPassthroughOp", "ImmutableConst", "SaveV2", "RestoreV2",
    "MergeV2Checkpoints", "LoadAndRemapMatrix", "Skipgram", "RecordInput", "DumpTensor",
    "CalibrationStatisticsSaver", "CacheDataset", "EncodeProto", "DecodeProtoV2",
    "CreateSummaryDbWriter", "SqlDataset", "IteratorFromStringHandle", "Abort",
    "RemoteCall", "Send", "Recv", "RpcClient", "RpcServer",
    "FileSystemSetConfiguration",
    "InitializeTableFromTextFile", "InitializeTableFromTextFileV2", "TextLineReaderV2",
    "WholeFileReaderV2", "QueueDequeueV2", "FIFOQueueV2", "Unstage", "GetSessionTensor",
    "CollectiveReduce", "ConfigureDistributedTPU", "TPUExecute", "_Send", "_Recv",
    "_HostSend", "Copy", "CopyHost", "Rpc", "TryRpc", "BigQueryReader",
    "GcsConfigureCredentials", "RemoteFusedGraphExecute", "AccumulatorTakeGradient",
]  # fmt: skip

ORDINARY = [
    "MatMul", "Conv2D", "FusedBatchNormV3", "Switch", "Merge", "Enter", "Exit",
    "NextIteration", "LoopCond", "While", "If", "PartitionedCall",
    "StatefulPartitionedCall", "TensorArrayV3", "StackPushV2", "VarHandleOp",
    "VariableV2", "ResourceApplyAdam", "RandomUniform", "StatelessRandomUniformV2",
    "HashTableV2", "LookupTableFindV2", "LookupTableImportV2", "InitializeTableV2",
    "DecodeJpeg", "DecodePng", "DecodeRaw", "DecodeCSV", "ParseExample", "Assert",
    "Print", "ScalarSummary", "MergeSummary", "CTCLoss", "TensorListStack",
    "OptionalFromValue", "SymbolicGradient", "NoOp", "Placeholder",
]  # fmt: skip


class TestLists:
    @pytest.mark.parametrize("op", HOSTILE)
    def test_refuses(self, op):
        found = category(op)
        assert found is not None
        assert found != UNKNOWN
        (finding,) = audit_ops(_graph(Node("n", op)))
        assert (finding.node, finding.op, finding.category) == ("n", op, found)
        assert finding.reason == REASONS[found]

    @pytest.mark.parametrize("op", ORDINARY)
    def test_allows(self, op):
        assert category(op) is None
        assert audit_ops(_graph(Node("n", op))) == []

    def test_every_category_has_a_reason(self):
        assert {category(op) for op in known_ops()} - {None} <= set(REASONS)

    def test_lists_do_not_overlap(self):
        from importlib import resources

        text = (
            resources.files("keras_metagraph.audit") / "allowed_ops.json"
        ).read_text()
        lists = json.loads(text)
        named = [op for ops in lists["refused"].values() for op in ops]
        assert len(set(named)) == len(named)
        assert not set(named) & set(lists["allowed"])

    def test_no_allowed_op_takes_a_path(self):
        """Arguments and attributes of the allowed ops, by TensorFlow's registry."""
        from keras_metagraph.graph.op_defs import op_def

        parts = ("filename", "file_name", "path", "address", "url", "token", "writer")
        suspects = set()
        for op in known_ops():
            definition = op_def(op)
            if category(op) is None and definition is not None:
                names = [a.name for a in (*definition.input_arg, *definition.attr)]
                if any(part in name for name in names for part in parts):
                    suspects.add(op)
        # `top_paths` is a number.
        assert suspects == {"CTCBeamSearchDecoder"}

    @pytest.mark.skipif(
        not tf.__version__.startswith("2.21"), reason="the lists are those of TF 2.21"
    )
    def test_every_allowed_op_exists(self):
        from keras_metagraph.graph.op_defs import op_def

        internal = {"_Arg", "_Retval"}
        gone = {
            op for op in known_ops() - internal if not category(op) and not op_def(op)
        }
        assert gone == set()


class TestWhereItLooks:
    def test_only_at_named_nodes(self):
        graph = _graph(Node("read", "ReadFile"), Node("x", "Placeholder"))
        assert audit_ops(graph, names=["x"]) == []
        assert [f.node for f in audit_ops(graph, names=["read"])] == ["read"]

    @pytest.mark.parametrize("kind", ["direct", "func", "list", "nested"])
    def test_into_functions(self, kind):
        node = _call("call", "f")
        if kind == "direct":
            node = Node("call", "f")
        elif kind == "list":
            node = Node("call", "Case", attrs={"branches": _attr()})
            node.attrs["branches"].list.func.add(name="f")
        elif kind == "nested":
            node = _call("call", "g")
            node.attrs["f"].func.attr["inner"].func.name = "f"
        graph = _graph(
            node, f=[_call("inner", "h")], g=[], h=[Node("read", "ReadFile")]
        )
        assert [f.node for f in audit_ops(graph)] == ["h/read"]

    def test_into_gradients_of_functions(self):
        graph = _graph(_call("call", "f"), f=[], grad=[Node("read", "ReadFile")])
        graph.functions["f"].gradient = "grad"
        assert [f.node for f in audit_ops(graph)] == ["grad/read"]

    def test_not_into_functions_that_nothing_calls(self):
        graph = _graph(Node("x", "Placeholder"), f=[Node("read", "ReadFile")])
        assert audit_ops(graph) == []
        graph.add(_call("call", "f"))
        assert audit_ops(graph, names=["x"]) == []

    def test_functions_that_call_one_another_end(self):
        graph = _graph(Node("call", "f"), f=[Node("n", "g")], g=[Node("n", "f")])
        assert audit_ops(graph) == []

    def test_a_function_does_not_hide_an_op(self):
        graph = _graph(Node("n", "ReadFile"), ReadFile=[Node("x", "NoOp")])
        assert [f.category for f in audit_ops(graph)] == ["file_read"]

    def test_a_function_that_is_not_there_is_an_unknown_op(self):
        assert [f.category for f in audit_ops(_graph(Node("n", "f")))] == [UNKNOWN]


class TestRules:
    @pytest.mark.parametrize(
        ("op", "key", "value", "found"),
        [
            ("VarHandleOp", "container", b"other", "cross_process_state"),
            ("HashTableV2", "container", b"other", "cross_process_state"),
            ("VarHandleOp", "container", b"", None),
            ("VarHandleOp", "container", b"localhost", None),
            ("PrintV2", "output_stream", b"file:///tmp/x", "file_write"),
            ("PrintV2", "output_stream", b"stderr", None),
            ("PrintV2", "output_stream", b"log(info)", None),
            ("FixedUnigramCandidateSampler", "vocab_file", b"/etc/passwd", "file_read"),
            ("FixedUnigramCandidateSampler", "vocab_file", b"", None),
            ("PartitionedCall", "executor_type", b"OTHER", "runtime_internal"),
            ("PartitionedCall", "executor_type", b"", None),
        ],
    )
    def test_strings(self, op, key, value, found):
        node = Node("n", op, attrs={key: _attr(s=value)})
        findings = audit_ops(_graph(node))
        assert [f.category for f in findings] == ([found] if found else [])
        if found:
            assert value.decode() in findings[0].reason

    @pytest.mark.parametrize("dtype", [tf.resource, tf.variant])
    def test_encoded_objects(self, dtype):
        node = Node("n", "Const", attrs={"value": _attr()})
        node.attrs["value"].tensor.dtype = dtype.as_datatype_enum
        assert [f.category for f in audit_ops(_graph(node))] == ["encoded_object"]

    def test_constants_that_grow(self):
        node = Node("n", "Const", attrs={"value": _attr()})
        node.attrs["value"].tensor.dtype = 1
        node.attrs["value"].tensor.tensor_shape.dim.add(size=2**40)
        assert [f.category for f in audit_ops(_graph(node))] == ["resource_exhaustion"]

    @pytest.mark.parametrize(
        ("op", "place"),
        [("Fill", 0), ("RandomUniform", 0), ("BroadcastTo", 1), ("Tile", 1)],
    )
    @pytest.mark.parametrize(
        ("shape", "refused"),
        [([2**29], True), ([2**20, 2**20], True), ([30000, 768], False), ([], False)],
    )
    def test_tensors_from_constant_shapes(self, op, place, shape, refused):
        inputs = [TensorName("x")] * place + [TensorName("dims")]
        graph = _graph(
            Node("x", "Placeholder"),
            _constant("dims", np.array(shape, np.int64)),
            Node("n", op, inputs),
        )
        findings = audit_ops(graph)
        expected = ["resource_exhaustion"] if refused else []
        assert [f.category for f in findings] == expected

    @pytest.mark.parametrize(("op", "place"), [("OneHot", 1), ("Range", 1)])
    def test_tensors_of_constant_length(self, op, place):
        inputs = [TensorName("x")] * place + [TensorName("count")]
        for count, found in ((2**31 - 1, 1), (1000, 0)):
            graph = _graph(
                Node("x", "Placeholder"),
                _constant("count", np.int32(count)),
                Node("n", op, inputs),
            )
            assert len(audit_ops(graph)) == found

    def test_shapes_that_are_computed_are_left_alone(self):
        graph = _graph(
            Node("dims", "Placeholder"), Node("n", "Fill", [TensorName("dims")])
        )
        assert audit_ops(graph) == []
        assert audit_ops(_graph(Node("n", "Fill"))) == []

    def test_limits_can_be_chosen(self):
        graph = _graph(
            _constant("dims", np.array([100], np.int32)),
            Node("n", "Fill", [TensorName("dims")]),
        )
        assert audit_ops(graph) == []
        assert len(audit_ops(graph, limits=Limits(filled_elements=99))) == 1


class TestRequireSafe:
    def test_accepts_what_computes(self):
        require_safe(_graph(Node("x", "Placeholder"), Node("y", "Relu")))

    def test_lists_everything_by_op(self):
        reads = [Node(f"read_{number}", "ReadFile") for number in range(7)]
        graph = _graph(*reads, Node("py", "PyFunc"), Node("c", "BilateralSliceApply"))
        with pytest.raises(UntrustedContentError) as caught:
            require_safe(graph)
        assert caught.value.findings == (
            "ReadFile reads files: read_0, read_1, read_2, read_3, read_4 and 2 more",
            "PyFunc calls Python functions of the running process: py",
            "BilateralSliceApply is known neither to TensorFlow nor to this package: c",
        )
        assert "safe_mode=False" in caught.value.fix

    def test_ops_that_nobody_knows(self):
        graph = _graph(Node("a", "BilateralSliceApply"), Node("b", "GrowTreeEnsemble"))
        with pytest.raises(UnsupportedOpError) as caught:
            require_safe(graph)
        assert len(caught.value.findings) == 2
        assert isinstance(caught.value, NotImplementedError)
        assert "tf.load_op_library" in caught.value.fix


class TestRealGraphs:
    @pytest.mark.parametrize("export", exports(), ids=repr)
    def test_what_fixtures_need_is_allowed(self, export):
        meta_graph_def = open_export(export.source.path).select(export.source.tags)
        graph = graph_from_proto(meta_graph_def.graph_def)
        roots = {TensorName.parse(name).node for name in export.fetches.values()}
        fed = {TensorName.parse(name).node for name in export.feeds.values()}
        cone = graph.ancestors(roots, stop=fed) - fed
        assert audit_ops(graph, names=cone) == []

    def test_whole_training_graphs_hold_nothing_but_savers(self):
        path = FIXTURES / "zoo" / "mlp_adam" / "model-20.meta"
        graph = graph_from_proto(open_export(path).select().graph_def)
        assert {f.category for f in audit_ops(graph)} == {"checkpoint_io"}

    def test_what_signatures_of_the_corpus_need_is_allowed(self, corpus):
        looked_at = 0
        for path in sorted(corpus.rglob("saved_model.pb*")):
            for meta_graph_def in open_export(os.path.dirname(path)).meta_graphs:
                graph = graph_from_proto(meta_graph_def.graph_def)
                for signature in meta_graph_def.signature_def.values():
                    if "saved_model_init_op" in signature.outputs or not _is_flat(
                        signature, graph
                    ):
                        continue
                    roots = _nodes(signature.outputs)
                    fed = _nodes(signature.inputs)
                    cone = graph.ancestors(roots, stop=fed) - fed
                    assert audit_ops(graph, names=cone) == []
                    looked_at += 1
        assert looked_at > 10


def _nodes(tensors):
    return {TensorName.parse(tensor.name).node for tensor in tensors.values()}


def _is_flat(signature, graph):
    names = _nodes(signature.outputs) | _nodes(signature.inputs)
    return bool(signature.outputs) and names <= set(graph.nodes)
