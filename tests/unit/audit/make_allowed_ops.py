"""Writes `keras_metagraph/audit/allowed_ops.json`, the list of ops by what they may do.

    make_allowed_ops.py TABLES OUTPUT

TABLES is a folder with one JSON per TensorFlow release, `<release>.json`, whose keys
are the release's core ops, and `ops_side_effects.json`, which gives the category of
every op that touches more than its inputs. An op is allowed if a release has it, it is
in no category, and the lists below do not say otherwise; they were made by reading
through all of what was left.
"""

import json
import pathlib
import sys

# Ops in a category that models need, and why they may run.
ALLOWED = {
    "control flow; bodies and cycles are checked": """
        Case Enter Exit For If LoopCond NextIteration PartitionedCall RefEnter RefExit
        RefNextIteration StatefulPartitionedCall StatelessCase StatelessIf
        StatelessWhile SymbolicGradient While
    """,
    "decoders of what the user feeds": """
        DecodeAndCropJpeg DecodeBmp DecodeCSV DecodeGif DecodeImage DecodeJSONExample
        DecodeJpeg DecodePng DecodeWav DeserializeManySparse DeserializeSparse
        ExtractJpegShape ParseExample ParseExampleV2 ParseSequenceExample
        ParseSequenceExampleV2 ParseSingleExample ParseSingleSequenceExample
        RaggedTensorFromVariant
    """,
    "a line on stderr; PrintV2 only without a file": "Assert Print PrintV2",
    "samples; only without a vocabulary file": "FixedUnigramCandidateSampler",
    "arguments and results of functions": "_Arg _Retval",
}

# Ops in no category that are refused all the same.
REFUSED = {
    "network": """
        BigQueryReader GcsConfigureBlockCache GcsConfigureCredentials
        GenerateBigQueryReaderPartitions Rpc TryRpc
    """,
    "nested_program": "RemoteFusedGraphExecute",
    "file_write": "Copy CopyHost",
    "cross_process_state": "CustomAggregator",
    "collective_comm": """
        CopyToMesh CopyToMeshGrad Relayout RelayoutLike XlaAllReduce XlaReduceScatter
    """,
    "process_abort_or_hang": """
        AccumulatorApplyGradient AccumulatorNumAccumulated AccumulatorSetGlobalStep
        AccumulatorTakeGradient ConditionalAccumulator ResourceAccumulatorApplyGradient
        ResourceAccumulatorNumAccumulated ResourceAccumulatorSetGlobalStep
        ResourceAccumulatorTakeGradient ResourceConditionalAccumulator
        SparseAccumulatorApplyGradient SparseAccumulatorTakeGradient
        SparseConditionalAccumulator
    """,
    "input_pipeline": """
        AnonymousMemoryCache AnonymousRandomSeedGenerator AnonymousSeedGenerator
        ComputeBatchSize DeleteMemoryCache DeleteRandomSeedGenerator DeleteSeedGenerator
        DummyMemoryCache DummySeedGenerator EnqueueInQueueDataset
        ExperimentalFunctionBufferingResource
        ExperimentalFunctionBufferingResourceGetNext
        ExperimentalFunctionBufferingResourceReset ExperimentalIdentityIndexedDataset
        ExperimentalIndexedDatasetGet ExperimentalIndexedDatasetMaterialize
        ExperimentalMaterializedIndexDatasetHandle ExperimentalNumaMapAndBatchDataset
        GetElementAtIndex GetOptions IteratorSetStatsAggregator MapAndBatchDatasetV2
        PrependFromQueueAndPaddedBatchDataset RestoreIterator SaveIterator SinkDataset
        SlideDataset SloppyInterleaveDataset WindowOp
    """,
    "test_only_op": "CheckPinned StringListAttr",
    "runtime_internal": """
        DebugGradientIdentity DebugGradientRefIdentity DebugNumericSummaryV2
    """,
}

# Whole families, by how their names begin.
REFUSED_PREFIXES = {
    "tpu_system": ("LoadTPU", "RetrieveTPU", "Xla"),
    "runtime_internal": ("_",),
    "experimental": ("Risc",),
}


def main(tables: str, output: str) -> None:
    """Reads the tables and writes the list."""
    folder = pathlib.Path(tables)
    categories = json.loads((folder / "ops_side_effects.json").read_text())
    del categories["_meta"]
    releases = {
        path.stem: set(json.loads(path.read_text()))
        for path in folder.glob("[0-9]*.json")
    }
    newest = max(releases, key=lambda name: tuple(map(int, name.split("."))))
    for category, ops in REFUSED.items():
        categories.update(dict.fromkeys(ops.split(), category))
    for op in set().union(*releases.values()) - set(categories):
        for category, prefixes in REFUSED_PREFIXES.items():
            if op.startswith(prefixes):
                categories[op] = category
    for ops in ALLOWED.values():
        for op in ops.split():
            del categories[op]
    # Harmless ops that the newest release no longer has stay unknown to the audit.
    allowed = releases[newest] | {"_Arg", "_Retval"}
    allowed -= set(categories)
    refused: dict[str, list[str]] = {}
    for op, category in sorted(categories.items()):
        refused.setdefault(category, []).append(op)
    document = {
        "releases": sorted(releases, key=lambda name: tuple(map(int, name.split(".")))),
        "allowed": sorted(allowed),
        "refused": dict(sorted(refused.items())),
    }
    pathlib.Path(output).write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
