"""Converts a .meta with OpenVINO and runs it on the CPU.

OpenVINO names inputs and outputs as the signature does, by key.

Arrays: the inputs, by key. Settings:
    prefix     checkpoint prefix; the .meta is beside it
    outputs    keys of the outputs to return
"""

import openvino


def main(arrays, args):
    """See above."""
    model = openvino.convert_model(args["prefix"] + ".meta")
    # A CPU that has bfloat16 would compute in it.
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled(arrays)
    return {key: results[key] for key in args["outputs"]}
