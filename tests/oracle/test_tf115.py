import numpy as np
import pytest

from oracle import environment, references
from oracle.tf115 import OracleError

# One of each kind: reference variables, a changed Const, text, V1, an old producer,
# a SavedModel of several MetaGraphs.
_SAMPLE = (
    "zoo/keras115_saver",
    "zoo/savedmodel_builder_multi",
    "zoo/text_meta",
    "versions/0.12.1/mlp_adam_v1",
)


def _close(found, expected):
    if expected.dtype.kind == "S":
        return np.array_equal(found, expected)
    return np.allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", _SAMPLE)
def test_recorded_outputs_come_out(tf115, name):
    export = references.export(name)
    script, args = export.source.tf115

    found = tf115(
        script,
        {f"feed/{export.feeds[key]}": value for key, value in export.inputs.items()},
        args | {"fetches": export.fetches},
    )

    assert {
        key: _close(found[f"fetch/{key}"], value)
        for key, value in export.outputs.items()
    } == dict.fromkeys(export.outputs, True)


@pytest.mark.parametrize("name", _SAMPLE)
def test_recorded_steps_come_out(tf115, name):
    training = references.export(name).training
    script, args = training.source.tf115

    found = tf115(
        script,
        {f"step/{training.feeds[key]}": v for key, v in training.arrays.items()},
        args
        | {
            "loss": training.loss,
            "train_op": training.train_op,
            "constants": training.constants,
            "edits": training.edits,
        },
    )

    np.testing.assert_allclose(found["losses"], training.losses, rtol=1e-6)
    for key, value in (training.after | training.after_state).items():
        np.testing.assert_allclose(found[f"after/{key}"], value, atol=1e-6)
        if key in training.after:
            assert not np.array_equal(found[f"before/{key}"], found[f"after/{key}"])


def test_signature_is_run(tf115):
    run = references.export("versions/1.4.0/savedmodel_predict").signatures[0]
    script, args = run.source.tf115

    found = tf115(
        script,
        {f"signature/{key}": value for key, value in run.inputs.items()},
        args | {"signature": run.signature},
    )

    assert set(found) == {f"signature/{key}" for key in run.outputs}
    for key, value in run.outputs.items():
        assert _close(found[f"signature/{key}"], value)


def test_source_as_text_gets_odd_names_and_strings(tf115):
    script = """
import numpy as np
import tensorflow as tf

def main(arrays, args):
    return {
        "file": arrays["file"] * args["factor"],
        "a/b:0": np.array([tf.__version__.encode()], object),
    }
"""

    found = tf115(script, {"file": [1.0, 2.0]}, {"factor": 3})

    assert found["file"].tolist() == [3.0, 6.0]
    assert found["a/b:0"].tolist() == [environment.VERSION.encode()]


def test_failure_shows_the_error_of_the_script(tf115):
    with pytest.raises(OracleError, match="no such thing"):
        tf115("\ndef main(arrays, args):\n    raise ValueError('no such thing')\n")


def test_objects_are_refused():
    from oracle.tf115 import _write_arrays

    with pytest.raises(TypeError, match="'x' has dtype object"):
        _write_arrays(None, {"x": [b"a", None]})


def test_wrong_interpreter_is_named(monkeypatch):
    monkeypatch.setenv("KERAS_METAGRAPH_TF115", "/nowhere/python")

    with pytest.raises(environment.OracleUnavailableError, match="/nowhere/python"):
        environment.find_or_make()


def test_an_environment_that_cannot_be_made_says_why(monkeypatch, tmp_path):
    monkeypatch.delenv("KERAS_METAGRAPH_TF115", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", "")

    with pytest.raises(environment.OracleUnavailableError, match=r"needs Python 3\.7"):
        environment.find_or_make()
