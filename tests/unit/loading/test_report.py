import json

import pytest

from keras_metagraph.loading.infer import Interface
from keras_metagraph.loading.report import LoadReport
from keras_metagraph.loading.restoration import Restoration


@pytest.fixture
def report():
    interface = Interface(
        inputs={"x": "in/x:0"},
        outputs={"y": "y:0"},
        labels={"t": "t:0"},
        loss="loss:0",
        train_op=["Adam"],
        training_values={"is_training:0": (True, False)},
        unfed=["rate:0"],
        reasons={"in/x:0": "the outputs need it"},
        warnings=["look out"],
        dropped=["collection 'a' names 'b'"],
    )
    restored = Restoration(
        variables={},
        values={f"w{place}": 0 for place in range(8)},
        initialized=("slot",),
        dropped=("local",),
        untrainable=("noise",),
        unused=("other",),
    )
    return LoadReport.of(interface, restored, notes=["gradient override of 'z'"])


def test_says_what_became_of_everything(report):
    text = str(report)

    assert "inputs: x = in/x:0 (the outputs need it)" in text
    assert "is_training:0 = True when training, False otherwise" in text
    assert "restored (8): w0, w1, w2, w3, w4, w5 and 2 more" in text
    for name in ("slot", "local", "noise", "other", "rate:0", "look out", "override"):
        assert name in text


def test_is_plain_python(report):
    plain = json.loads(json.dumps(report.to_dict()))

    assert plain["kind"] == "graph"
    assert plain["interface"]["inputs"] == {"x": "in/x:0"}
    assert plain["missing"] == ["noise"]
    assert plain["omitted"] == ["local"]
    assert plain["dropped"] == ["collection 'a' names 'b'", "gradient override of 'z'"]


def test_says_nothing_of_what_there_is_not():
    assert str(LoadReport("config")) == "Loaded from its config."
