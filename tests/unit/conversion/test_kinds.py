import pytest

from keras_metagraph.conversion.kinds import destination_kind, source_kind
from keras_metagraph.errors import FormatError


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("run/model.meta", "meta_graph"),
        ("run/model.ckpt", "meta_graph"),
        ("run/model.ckpt-1000", "meta_graph"),
        ("model.keras", "keras"),
        ("model.h5", "h5"),
        ("model.hdf5", "h5"),
        ("model.weights.h5", "weights"),
        ("exported", "saved_model"),
        ("exported/1", "saved_model"),
        ("exported/v1.2/", "saved_model"),
        ("exports.d/model", "saved_model"),
    ],
)
def test_a_name_says_what_to_write(path, kind):
    assert destination_kind(path, None) == kind


def test_what_a_name_does_not_say_is_said():
    assert destination_kind("run/model", "meta_graph") == "meta_graph"
    assert destination_kind("model.export", "saved_model") == "saved_model"


@pytest.mark.parametrize(
    ("path", "to", "message"),
    [
        ("model.pb", None, "does not say"),
        ("model.pbtxt", None, "does not say"),
        ("model.onnx", None, "does not say"),
        ("model", "keras", r"ending \.keras"),
        ("model.h5", "weights", r"ending \.weights\.h5"),
        ("model", "onnx", "one of meta_graph"),
    ],
)
def test_a_name_that_does_not_fit_is_refused(path, to, message):
    with pytest.raises(FormatError, match=message):
        destination_kind(path, to)


def test_files_of_keras_are_told_by_their_content(tmp_path):
    for name in ("a.h5", "b", "c.weights.h5"):
        (tmp_path / name).write_bytes(b"\x89HDF\r\n\x1a\n")
    (tmp_path / "d.h5").write_bytes(b"no HDF5")
    (tmp_path / "e.keras").touch()
    (tmp_path / "f.keras").mkdir()

    found = {p.name: source_kind(str(p)) for p in sorted(tmp_path.iterdir())}
    assert found == {
        "a.h5": "h5",
        "b": "h5",
        "c.weights.h5": "weights",
        "d.h5": None,
        "e.keras": "keras",
        "f.keras": None,
    }
