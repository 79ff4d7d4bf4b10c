"""Converts a .meta with OpenVINO and runs it on the CPU.

Arrays: the feeds, by tensor name. Settings:
    prefix     checkpoint prefix; the .meta is beside it
    fetches    names of the tensors to return
"""

import openvino


def main(arrays, args):
    """See above."""
    model = openvino.convert_model(args["prefix"] + ".meta")
    # A CPU that has bfloat16 would compute in it.
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled(arrays)
    return {name: results[name] for name in args["fetches"]}
