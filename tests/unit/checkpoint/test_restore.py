"""Reading the values of variables from checkpoints."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from keras_metagraph.checkpoint.restore import (
    TensorReader,
    missing_variables_error,
    open_checkpoint,
    read_variables,
)
from keras_metagraph.errors import (
    CheckpointError,
    MissingVariableError,
    ShapeMismatchError,
)
from keras_metagraph.graph.restore_wiring import Slice
from keras_metagraph.graph.variables import GraphVariable
from oracle.references import FIXTURES

v1 = tf.compat.v1

VALUES = {
    "dense/kernel": np.arange(12, dtype=np.float32).reshape(3, 4),
    "dense/bias": np.ones(4, np.float32),
    "step": np.int64(7),
    "words": np.array([b"a", b"bcd"], object),
    "half": np.array([1.5, -2.0], np.float16),
    "flag": np.array([True, False]),
}


def _save(prefix, values, version=v1.train.SaverDef.V2, **options):
    """Writes a checkpoint with TensorFlow's own Saver."""
    with tf.Graph().as_default(), v1.Session() as session:
        variables = [
            v1.Variable(value, name=name, use_resource=True)
            for name, value in values.items()
        ]
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver(variables, write_version=version, **options)
        return saver.save(session, os.fspath(prefix), write_meta_graph=False)


def _variable(name, value=None, **changes):
    value = VALUES.get(name) if value is None else value
    fields = {
        "name": name,
        "op": "VarHandleOp",
        "dtype": tf.as_dtype(np.asarray(value).dtype),
        "shape": np.shape(value),
        "trainable": True,
        "collections": frozenset(),
        "checkpoint_key": name,
    }
    return GraphVariable(**(fields | changes))


@pytest.fixture
def prefix(tmp_path):
    return _save(tmp_path / "model", VALUES)


def _flip(path, position):
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 0x10]))


def _is_damaged(prefix, key):
    try:
        TensorReader(prefix).read(key)
    except CheckpointError:
        return True
    return False


class TestTensorReader:
    def test_reads_every_tensor(self, prefix):
        reader = open_checkpoint(prefix)
        assert reader.keys() == sorted(VALUES)
        for key, value in VALUES.items():
            np.testing.assert_array_equal(reader.read(key), value)
            assert reader.shape(key) == np.shape(value)
        assert reader.dtype("half") == tf.float16
        assert reader.dtype("words") == tf.string
        assert "step" in reader
        assert "nothing" not in reader

    @pytest.mark.filterwarnings("ignore")
    def test_reads_v1_checkpoints(self, tmp_path):
        numbers = {key: VALUES[key] for key in ("dense/kernel", "step")}
        prefix = _save(tmp_path / "old", numbers, v1.train.SaverDef.V1)
        assert not os.path.exists(prefix + ".index")
        np.testing.assert_array_equal(
            open_checkpoint(prefix).read("dense/kernel"), VALUES["dense/kernel"]
        )

    @pytest.mark.filterwarnings("ignore")
    def test_reads_v1_checkpoints_in_shards(self, tmp_path):
        numbers = {"dense/kernel": VALUES["dense/kernel"]}
        prefix = _save(tmp_path / "old", numbers, v1.train.SaverDef.V1, sharded=True)
        assert prefix.endswith("-?????-of-00001")
        reader = open_checkpoint(prefix)
        np.testing.assert_array_equal(
            reader.read("dense/kernel"), numbers["dense/kernel"]
        )

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("version", [v1.train.SaverDef.V1, v1.train.SaverDef.V2])
    def test_pattern_characters_in_a_path_are_characters(self, tmp_path, version):
        folder = tmp_path / "run [1] * ?"
        folder.mkdir()
        prefix = _save(tmp_path / "model", {"step": VALUES["step"]}, version)
        for name in os.listdir(tmp_path):
            if name.startswith("model"):
                shutil.move(tmp_path / name, folder / name)
        moved = folder / os.path.basename(prefix)
        assert open_checkpoint(moved).read("step") == 7

    def test_reads_a_prefix_without_base_name(self, tmp_path, prefix):
        for name in os.listdir(tmp_path):
            if name.startswith("model."):
                os.rename(tmp_path / name, tmp_path / name.removeprefix("model"))
        assert open_checkpoint(f"{tmp_path}/").read("step") == 7

    @pytest.mark.parametrize(
        "path",
        sorted(str(p) for p in FIXTURES.rglob("*.index")),
        ids=lambda p: os.path.relpath(p, FIXTURES),
    )
    def test_reads_fixtures(self, path):
        reader = open_checkpoint(path.removesuffix(".index"))
        keys = reader.keys()
        assert keys
        for key in keys:
            assert reader.read(key).shape == reader.shape(key)


class TestUnreadable:
    def test_nothing_there(self, tmp_path):
        with pytest.raises(CheckpointError, match="cannot be opened"):
            open_checkpoint(tmp_path / "nothing")

    def test_no_directory(self, tmp_path):
        with pytest.raises(CheckpointError, match="cannot be opened"):
            open_checkpoint(tmp_path / "no" / "model")

    def test_another_file(self, tmp_path):
        (tmp_path / "model").write_text("hello")
        with pytest.raises(CheckpointError, match="cannot be opened"):
            open_checkpoint(tmp_path / "model")

    def test_index_without_data(self, prefix):
        os.remove(prefix + ".data-00000-of-00001")
        with pytest.raises(CheckpointError, match="step"):
            open_checkpoint(prefix).read("step")

    def test_truncated_data(self, prefix):
        data = prefix + ".data-00000-of-00001"
        os.truncate(data, 10)
        with pytest.raises(CheckpointError, match="dense/kernel"):
            open_checkpoint(prefix).read("dense/kernel")

    def test_flipped_bit_of_data(self, prefix):
        data = prefix + ".data-00000-of-00001"
        reader = open_checkpoint(prefix)
        for position in range(os.path.getsize(data)):
            _flip(data, position)
            assert sum(_is_damaged(prefix, key) for key in VALUES) == 1
            _flip(data, position)
        assert reader.read("step") == 7

    def test_damaged_index_gives_one_kind_of_error_or_the_true_values(self, prefix):
        index = prefix + ".index"
        errors = 0
        for position in range(os.path.getsize(index)):
            _flip(index, position)
            try:
                reader = open_checkpoint(prefix)
                keys = reader.keys()
                values = {key: reader.read(key) for key in keys}
            except CheckpointError:
                errors += 1
            else:
                for key, value in values.items():
                    np.testing.assert_array_equal(value, VALUES[key])
            _flip(index, position)
        assert errors > 100

    def test_truncated_index(self, prefix):
        index = prefix + ".index"
        content = Path(index).read_bytes()
        for length in range(0, len(content), 7):
            with open(index, "wb") as file:
                file.write(content[:length])
            with pytest.raises(CheckpointError):
                open_checkpoint(prefix)

    def test_tensor_larger_than_all_files(self, prefix, monkeypatch):
        reader = open_checkpoint(prefix)
        monkeypatch.setattr(reader, "_shapes", {"step": [2**40]})
        with pytest.raises(CheckpointError, match="would take 8,796,093,022,208 bytes"):
            reader.read("step")

    @pytest.mark.parametrize(
        "error",
        [IndexError("x"), KeyError("x"), tf.errors.DataLossError(None, None, "")],
    )
    def test_any_error_of_tensorflow_is_one_of_ours(self, prefix, monkeypatch, error):
        class Broken:
            def get_tensor(self, key):
                raise error

        reader = open_checkpoint(prefix)
        monkeypatch.setattr(reader, "_reader", Broken())
        with pytest.raises(CheckpointError, match="'step'") as caught:
            reader.read("step")
        assert caught.value.__cause__ is error

    @pytest.mark.parametrize("method", ["read", "shape", "dtype"])
    def test_unknown_key_names_the_nearest(self, prefix, method):
        with pytest.raises(MissingVariableError, match="dense/kernel"):
            getattr(open_checkpoint(prefix), method)("dense/kernl")


class TestReadVariables:
    def test_reads_values_and_lists_what_is_missing(self, prefix):
        missing = [
            _variable("gone", 1.0),
            _variable("left_out", 1, checkpoint_key=None),
        ]
        restored = read_variables(
            open_checkpoint(prefix), [*map(_variable, VALUES), *missing]
        )
        assert restored.values.keys() == VALUES.keys()
        assert restored.missing == missing
        np.testing.assert_array_equal(
            restored.values["dense/kernel"], VALUES["dense/kernel"]
        )

    def test_reads_by_key_not_by_name(self, prefix):
        variable = _variable("w", VALUES["dense/bias"], checkpoint_key="dense/bias")
        values = read_variables(open_checkpoint(prefix), [variable]).values
        np.testing.assert_array_equal(values["w"], VALUES["dense/bias"])

    def test_cuts_parts_out_of_one_tensor(self, prefix):
        whole = VALUES["dense/kernel"]
        parts = [
            _variable(
                f"emb/part_{row}",
                whole[row : row + 1],
                checkpoint_key="dense/kernel",
                slice=Slice("dense/kernel", (3, 4), (row, 0), (1, 4)),
            )
            for row in range(3)
        ]
        reader = open_checkpoint(prefix)
        reads = []
        read = reader.read
        reader.read = lambda key: (reads.append(key), read(key))[1]
        # Another variable between the parts does not make it read again.
        values = read_variables(
            reader, [parts[0], _variable("step"), *parts[1:]]
        ).values
        for row in range(3):
            np.testing.assert_array_equal(
                values[f"emb/part_{row}"], whole[row : row + 1]
            )
        assert sorted(reads) == ["dense/kernel", "step"]

    def test_unknown_shapes_take_what_is_there(self, prefix):
        variables = [
            _variable("dense/kernel", shape=None),
            _variable("dense/bias", shape=(None,)),
        ]
        values = read_variables(open_checkpoint(prefix), variables).values
        assert values["dense/kernel"].shape == (3, 4)
        assert values["dense/bias"].shape == (4,)

    def test_reshapes_only_where_the_saver_does(self, prefix):
        variable = _variable("dense/kernel", shape=(2, 6), reshape=True)
        values = read_variables(open_checkpoint(prefix), [variable]).values
        assert values["dense/kernel"].shape == (2, 6)
        with pytest.raises(ShapeMismatchError):
            read_variables(
                open_checkpoint(prefix), [_variable("dense/kernel", shape=(2, 6))]
            )

    def test_lists_all_conflicts(self, prefix):
        variables = [
            _variable("dense/kernel", shape=(4, 3)),
            _variable("dense/bias", shape=(4, 1)),
            _variable("step", dtype=tf.int32),
            _variable("half"),
            _variable("other", np.ones(3), checkpoint_key="flag"),
        ]
        with pytest.raises(ShapeMismatchError) as caught:
            read_variables(open_checkpoint(prefix), variables)
        assert caught.value.findings == (
            "dense/kernel: float32[4, 3] in the graph, float32[3, 4] in the checkpoint",
            "dense/bias: float32[4, 1] in the graph, float32[4] in the checkpoint",
            "step: int32[] in the graph, int64[] in the checkpoint",
            "other (stored as 'flag'): float64[3] in the graph, bool[2] in the "
            "checkpoint",
        )

    @pytest.mark.parametrize(
        ("whole", "offset", "shape"),
        [
            ((3, 4), (2, 0), (2, 4)),
            ((3, 4), (-1, 0), (1, 4)),
            ((3, 4), (0,), (1,)),
            ((9, 4), (0, 0), (1, 4)),
        ],
    )
    def test_parts_that_are_not_in_the_tensor(self, prefix, whole, offset, shape):
        variable = _variable("dense/kernel", slice=Slice("e", whole, offset, shape))
        with pytest.raises(ShapeMismatchError, match="dense/kernel"):
            read_variables(open_checkpoint(prefix), [variable])


def test_error_for_missing_variables_lists_all_of_them(prefix):
    variables = [
        _variable("dense/kernle", np.ones((3, 4), np.float32)),
        _variable("w", 1.0, checkpoint_key="dense/biass", shape=None),
        *(_variable(f"gone_{number}", 1.0) for number in range(300)),
    ]
    error = missing_variables_error(open_checkpoint(prefix), variables)
    assert isinstance(error, KeyError)
    assert len(error.findings) == 302
    assert error.findings[0] == (
        "dense/kernle float32[3, 4]; nearest: dense/kernel, dense/bias"
    )
    assert "looked for as 'dense/biass'; nearest: dense/bias" in error.findings[1]
    assert "lacks 302 variables" in str(error)
