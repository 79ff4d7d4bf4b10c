import json
import shutil
import subprocess
import sys

import pytest
import tensorflow as tf

from keras_metagraph import cli
from oracle.references import FIXTURES

v1 = tf.compat.v1
ZOO = FIXTURES / "zoo"


def test_prints_tables(capsys):
    code = cli.main(["inspect", str(ZOO / "mlp_adam")])

    printed = capsys.readouterr()
    assert code == 0
    assert "dense_1/BiasAdd:0" in printed.out
    assert printed.err == ""


def test_prints_json(capsys):
    path = ZOO / "savedmodel_builder_multi" / "saved_model"
    code = cli.main(["inspect", str(path), "--json", "--tags", "gpu,serve"])

    printed = json.loads(capsys.readouterr().out)
    assert code == 0
    (graph,) = printed["meta_graphs"]
    assert graph["tags"] == ["serve", "gpu"]
    assert graph["interface"]["inputs"] == {"tokens": "tokens:0"}


def test_an_error_is_its_message(capsys, tmp_path):
    code = cli.main(["inspect", str(tmp_path / "nothing")])

    printed = capsys.readouterr()
    assert code == 2
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert "To fix: " in printed.err
    assert "Traceback" not in printed.err


def test_warnings_stand_beside_the_output(capsys, tmp_path):
    for file in (ZOO / "text_meta").iterdir():
        shutil.copy(file, tmp_path)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model-99"\n')

    code = cli.main(["inspect", str(tmp_path), "--json"])

    printed = capsys.readouterr()
    assert code == 0
    assert json.loads(printed.out)["checkpoint"].endswith("model-20")
    assert printed.err.startswith("warning: ")


def test_says_when_the_model_is_refused(capsys, tmp_path):
    with tf.Graph().as_default():
        x = v1.placeholder(tf.float32, [None, 4], "x")
        tf.identity(v1.py_func(lambda a: a, [x], tf.float32), "y")
        v1.train.export_meta_graph(str(tmp_path / "model.meta"))

    assert cli.main(["inspect", str(tmp_path / "model.meta")]) == 1
    assert "PyFunc" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["inspect"], ["inspect", "a", "--xml"]])
def test_wrong_arguments_end_with_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)

    assert caught.value.code == 2
    assert "usage: keras-metagraph" in capsys.readouterr().err


def test_help_costs_no_tensorflow():
    code = (
        "import sys\n"
        "from keras_metagraph.cli import main\n"
        "try:\n"
        "    main(['inspect', '--help'])\n"
        "except SystemExit:\n"
        "    sys.exit('tensorflow' in sys.modules)\n"
    )

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert ran.returncode == 0
    assert "exit codes" in ran.stdout
