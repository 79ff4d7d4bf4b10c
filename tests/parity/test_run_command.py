"""`keras-metagraph run` against `saved_model_cli run` of this TensorFlow."""

import json
import subprocess
import sys

import numpy as np
import pytest

from keras_metagraph import cli
from oracle.references import FIXTURES, exports

RUNS = {
    f"{export.name} {run.label}": run
    for export in exports()
    for run in export.signatures
}
EXAMPLES = {
    "estimator_dnn/export classification": (
        "zoo/estimator_dnn/export",
        "classification",
        [
            {
                "age": [22.0],
                "city": ["Lyon"],
                "color": ["red"],
                "scores": [1.0, 2.0, 3.0],
            },
            {
                "age": [61.5],
                "city": ["Paris"],
                "color": ["x"],
                "scores": [0.0, 0.5, 9.0],
            },
        ],
    ),
    "savedmodel_builder_multi regress": (
        "zoo/savedmodel_builder_multi/saved_model",
        "regress",
        [{"tokens": ["good", "bad", "a", "b"]}],
    ),
}
# The import costs seconds, and each run ends its process.
PROGRAM = """
import json, os, sys
from tensorflow.python.tools import saved_model_cli
for arguments in json.loads(sys.stdin.read()):
    child = os.fork()
    if child == 0:
        sys.argv = ["saved_model_cli", "run", *arguments]
        saved_model_cli.main()
    if os.waitpid(child, 0)[1]:
        sys.exit(f"saved_model_cli failed: {arguments}")
"""


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What `saved_model_cli` writes for all runs: arrays by output, by run."""
    root = tmp_path_factory.mktemp("saved_model_cli")
    commands = []
    for place, (name, run) in enumerate(RUNS.items()):
        np.savez(root / f"{place}.npz", **run.inputs)
        given = ";".join(f"{key}={root / f'{place}.npz'}[{key}]" for key in run.inputs)
        commands.append((name, run.source.path, run.source.tags, run.signature, given))
    commands = [
        [
            *("--dir", str(path), "--tag_set", ",".join(tags)),
            *("--signature_def", signature, "--inputs", given),
            *("--outdir", str(root / name)),
        ]
        for name, path, tags, signature, given in commands
    ] + [
        [
            *("--dir", str(FIXTURES / path), "--tag_set", "serve"),
            *("--signature_def", signature, "--input_examples", f"inputs={examples!r}"),
            *("--outdir", str(root / name)),
        ]
        for name, (path, signature, examples) in EXAMPLES.items()
    ]
    subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(commands),
        text=True,
        check=True,
        capture_output=True,
    )
    return {
        name: {
            file.relative_to(root / name).with_suffix("").as_posix(): np.load(
                file, allow_pickle=True
            )
            for file in (root / name).rglob("*.npy")
        }
        for name in [*RUNS, *EXAMPLES]
    }


def assert_same(path, expected):
    with np.load(path) as found:
        assert set(found.files) == set(expected)
        for key, value in expected.items():
            if value.dtype == object:
                assert found[key].tolist() == value.tolist(), key
            else:
                assert found[key].dtype == value.dtype, key
                np.testing.assert_allclose(found[key], value, 1e-6, 1e-6, err_msg=key)


@pytest.mark.parametrize("name", RUNS)
def test_gives_what_saved_model_cli_gives(expected, tmp_path, name):
    run = RUNS[name]
    np.savez(tmp_path / "in.npz", **run.inputs)
    inputs, output = str(tmp_path / "in.npz"), str(tmp_path / "out.npz")
    tags = ["--tags", ",".join(run.source.tags)]
    arguments = ["run", str(run.source.path), "--signature", run.signature, *tags]

    assert cli.main([*arguments, "--inputs", inputs, "--output", output]) == 0

    assert_same(output, expected[name])


@pytest.mark.parametrize("name", EXAMPLES)
def test_takes_the_examples_that_saved_model_cli_takes(expected, tmp_path, name):
    path, signature, examples = EXAMPLES[name]
    output = str(tmp_path / "out.npz")
    arguments = ["run", str(FIXTURES / path), "--signature", signature]
    arguments += ["--examples", f"inputs={json.dumps(examples)}", "--output", output]

    assert cli.main(arguments) == 0

    assert_same(output, expected[name])
