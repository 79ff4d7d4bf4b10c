"""Tables: which ops take and give references, and what replaces them."""

VARIABLES = {"Variable", "VariableV2", "TemporaryVariable"}

FLOW = {
    "RefEnter": "Enter",
    "RefExit": "Exit",
    "RefIdentity": "Identity",
    "RefMerge": "Merge",
    "RefNextIteration": "NextIteration",
    "RefSwitch": "Switch",
}
"""Ops that pass a reference on, and what passes a resource handle on."""

_OPTIMIZERS = {
    "AdaMax": 3,
    "Adadelta": 3,
    "Adagrad": 2,
    "AdagradDA": 3,
    "AdagradV2": 2,
    "Adam": 3,
    "AddSign": 2,
    "CenteredRMSProp": 4,
    "Ftrl": 3,
    "FtrlV2": 3,
    "GradientDescent": 1,
    "Momentum": 2,
    "PowerSign": 2,
    "ProximalAdagrad": 2,
    "ProximalGradientDescent": 1,
    "RMSProp": 3,
}

REF_INPUTS = {
    "Assign": 1,
    "AssignAdd": 1,
    "AssignSub": 1,
    "StridedSliceAssign": 1,
    **{f"Apply{name}": count for name, count in _OPTIMIZERS.items()},
    **{f"SparseApply{name}": count for name, count in _OPTIMIZERS.items()},
    **{
        f"Scatter{name}": 1
        for name in ("Add", "Div", "Max", "Min", "Mul", "Sub", "Update")
    },
    **{f"ScatterNd{name}": 1 for name in ("Add", "Max", "Min", "Sub", "Update")},
}
"""Ops that update variables and give a reference; how many inputs are references."""

RESOURCE_FORMS = {
    "Assign": "AssignVariableOp",
    "AssignAdd": "AssignAddVariableOp",
    "AssignSub": "AssignSubVariableOp",
    **{
        op: "Resource" + op
        for op in REF_INPUTS
        if op not in ("Assign", "AssignAdd", "AssignSub")
    },
}

TYPE_IS_DTYPE = {
    "Assign",
    "AssignAdd",
    "AssignSub",
    *(
        f"Scatter{name}"
        for name in ("Add", "Div", "Max", "Min", "Mul", "Sub", "Update")
    ),
}
"""Ops whose attribute `T` is called `dtype` in the resource form."""

VIEWS = {
    "Bitcast",
    "CheckNumerics",
    "ExpandDims",
    "Identity",
    "PreventGradient",
    "Print",
    "Reshape",
    "Squeeze",
    "StopGradient",
}
"""Ops whose output shares the buffer of their first input."""

HANDLES = {
    **{
        op: f"{op}V2"
        for op in (
            "FIFOQueue",
            "FixedLengthRecordReader",
            "HashTable",
            "IdentityReader",
            "InitializeTable",
            "InitializeTableFromTextFile",
            "LookupTableExport",
            "LookupTableFind",
            "LookupTableImport",
            "LookupTableInsert",
            "LookupTableSize",
            "MutableDenseHashTable",
            "MutableHashTable",
            "MutableHashTableOfTensors",
            "PaddingFIFOQueue",
            "PriorityQueue",
            "QueueClose",
            "QueueDequeue",
            "QueueDequeueMany",
            "QueueDequeueUpTo",
            "QueueEnqueue",
            "QueueEnqueueMany",
            "QueueIsClosed",
            "QueueSize",
            "RandomShuffleQueue",
            "ReaderNumRecordsProduced",
            "ReaderNumWorkUnitsCompleted",
            "ReaderRead",
            "ReaderReadUpTo",
            "ReaderReset",
            "ReaderRestoreState",
            "ReaderSerializeState",
            "Stack",
            "StackClose",
            "StackPop",
            "StackPush",
            "TFRecordReader",
            "TextLineReader",
            "WholeFileReader",
        )
    },
    **{
        f"TensorArray{name}{version}": f"TensorArray{name}V3"
        for version in ("", "V2")
        for name in (
            "",
            "Close",
            "Concat",
            "Gather",
            "Grad",
            "Read",
            "Scatter",
            "Size",
            "Split",
            "Write",
        )
    },
    "AccumulatorApplyGradient": "ResourceAccumulatorApplyGradient",
    "AccumulatorNumAccumulated": "ResourceAccumulatorNumAccumulated",
    "AccumulatorSetGlobalStep": "ResourceAccumulatorSetGlobalStep",
    "AccumulatorTakeGradient": "ResourceAccumulatorTakeGradient",
    "ConditionalAccumulator": "ResourceConditionalAccumulator",
}
"""Ops on string handles, and what works on resource handles; inputs are the same."""

HANDLE_SOURCES = {
    "ConditionalAccumulator",
    "FIFOQueue",
    "FixedLengthRecordReader",
    "HashTable",
    "IdentityReader",
    "MutableDenseHashTable",
    "MutableHashTable",
    "MutableHashTableOfTensors",
    "PaddingFIFOQueue",
    "PriorityQueue",
    "RandomShuffleQueue",
    "Stack",
    "TFRecordReader",
    "TensorArray",
    "TensorArrayGrad",
    "TensorArrayGradV2",
    "TensorArrayV2",
    "TextLineReader",
    "WholeFileReader",
}
"""Those of `HANDLES` whose first output is the handle."""

FLOW_LAST = {
    f"TensorArray{name}{version}"
    for version in ("", "V2")
    for name in (
        "Concat",
        "Gather",
        "Grad",
        "Pack",
        "Read",
        "Scatter",
        "Size",
        "Split",
        "Unpack",
        "Write",
    )
}
"""Ops of old tensor arrays that take the array's flow as their last input."""
