"""Converts a .meta to ONNX with tf2onnx, by its command, and runs it in onnxruntime.

Arrays: the inputs, by tensor name. Settings:
    prefix     checkpoint prefix; the .meta is beside it
    outputs    names of the tensors to return
"""

import os
import subprocess
import sys
import tempfile

import onnxruntime


def main(arrays, args):
    """See above."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.onnx")
        convert(args["prefix"] + ".meta", list(arrays), args["outputs"], path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    values = session.run(args["outputs"], arrays)
    return dict(zip(args["outputs"], values, strict=True))


def convert(meta, inputs, outputs, path):
    """Runs `python -m tf2onnx.convert`."""
    command = [sys.executable, "-m", "tf2onnx.convert", "--checkpoint", meta]
    command += ["--inputs", ",".join(inputs), "--outputs", ",".join(outputs)]
    done = subprocess.run(
        [*command, "--output", path], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-8000:]}")
