import numpy as np
import pytest

from oracle import references


def test_fixtures_are_the_recorded_ones():
    found = {
        path: digest
        for path, digest in references.sums_of(references.FIXTURES).items()
        if path.startswith(("saved_models/", "versions/", "zoo/"))
    }

    assert found == references.recorded_sums(references.FIXTURES)


def test_every_fixture_folder_is_an_export():
    folders = {
        path.split("/reference.json")[0]
        for path in references.recorded_sums(references.FIXTURES)
        if "json" in path and path.startswith(("zoo/", "versions/"))
    }

    assert {export.name for export in references.exports()} == folders
    assert len(folders) == 26 - 1


@pytest.mark.parametrize("export", references.exports(), ids=repr)
def test_export_is_complete(export):
    assert export.source.path.exists()
    assert set(export.feeds) == set(export.inputs)
    assert set(export.fetches) == set(export.outputs)
    for run in export.signatures:
        assert run.source.path.is_dir()
        assert run.inputs
        assert run.outputs


@pytest.mark.parametrize("export", references.trainable_exports(), ids=repr)
def test_training_is_complete(export):
    training = export.training

    assert training.source.path.exists()
    assert training.losses.shape in {(5,), (8,)}
    assert np.isfinite(training.losses).all()
    assert set(training.arrays) == set(training.feeds)
    assert {len(values) for values in training.arrays.values()} == {
        len(training.losses)
    }
    assert training.after
    assert not set(training.after) & set(training.after_state)


def test_versions_train_with_the_flag_on():
    training = references.export("versions/1.4.0/cnn_bn_momentum").training

    assert training.feed(0)["is_training:0"] is True
    assert set(training.feed(0)) == {"images:0", "labels:0", "is_training:0"}


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(KeyError, match="zoo/mlp_adam"):
        references.export("zoo/nothing")
