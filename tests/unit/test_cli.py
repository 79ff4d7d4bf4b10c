import json
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from keras_metagraph import cli
from oracle.references import FIXTURES

v1 = tf.compat.v1
ZOO = FIXTURES / "zoo"


@pytest.fixture(autouse=True)
def nobody_looks(monkeypatch):
    """Leaves it open how wide the terminal is; pytest-xdist says it of its own."""
    monkeypatch.delenv("COLUMNS", raising=False)


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


@pytest.mark.parametrize("command", ["inspect", "signatures", "run", "convert"])
def test_help_costs_no_tensorflow(command):
    code = (
        "import sys\n"
        "from keras_metagraph.cli import main\n"
        "try:\n"
        f"    main([{command!r}, '--help'])\n"
        "except SystemExit:\n"
        "    sys.exit('tensorflow' in sys.modules)\n"
    )

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert ran.returncode == 0
    assert "exit codes" in ran.stdout


def test_a_reader_may_stop_reading():
    """As `| head` does."""
    command = [sys.executable, "-c", "from keras_metagraph.cli import main; main()"]
    path = ZOO / "estimator_dnn" / "export_all"

    with subprocess.Popen(
        [*command, "inspect", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as ran:
        ran.stdout.close()
        errors = ran.stderr.read()

    assert "Traceback" not in errors
    assert "BrokenPipe" not in errors
    assert ran.returncode == 0


MULTI = ZOO / "savedmodel_builder_multi" / "saved_model"
ESTIMATOR = ZOO / "estimator_dnn" / "export"
EXAMPLES = (
    '[{"age": [22.0], "city": "Lyon", "color": "red", "scores": [1.0, 2.0, 3.0]}]'
)


def test_lists_signatures(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")

    code = cli.main(["signatures", str(MULTI)])

    printed = capsys.readouterr()
    assert code == 0
    assert max(map(len, printed.out.splitlines())) <= 80
    for part in (
        "Graph serve + gpu",
        "serving/classify",
        "in  tokens",
        "float32 (None",
    ):
        assert part in printed.out


def test_signatures_in_a_pipe_are_lines_and_json(capsys):
    assert cli.main(["signatures", str(ESTIMATOR)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("out all_class_ids" in x and "predictions/Tile:0" in x for x in lines)

    assert cli.main(["signatures", str(ESTIMATOR), "--json"]) == 0
    (graph,) = json.loads(capsys.readouterr().out)["graphs"]
    assert graph["tags"] == ["serve"]
    regression = next(s for s in graph["signatures"] if s["name"] == "regression")
    assert regression == {
        "name": "regression",
        "method": "tensorflow/serving/regress",
        "inputs": {
            "inputs": {
                "tensor": "input_example_tensor:0",
                "dtype": "string",
                "shape": [None],
            }
        },
        "outputs": {
            "outputs": {
                "tensor": "dnn/head/predictions/logistic:0",
                "dtype": "float32",
                "shape": [None, 1],
            }
        },
        "findings": [],
    }


def test_says_what_servers_refuse(capsys, tmp_path):
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], "x")
        signature = v1.saved_model.build_signature_def(
            {"x": v1.saved_model.build_tensor_info(x)},
            {"y": v1.saved_model.build_tensor_info(tf.identity(x))},
            "tensorflow/serving/classify",
        )
        builder = v1.saved_model.Builder(str(tmp_path / "exported"))
        builder.add_meta_graph_and_variables(session, ["serve"])
        builder.save()
    # The builder itself refuses to write it.
    path = tmp_path / "exported" / "saved_model.pb"
    proto = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    proto.meta_graphs[0].signature_def["classify"].CopyFrom(signature)
    path.write_bytes(proto.SerializeToString())

    code = cli.main(["signatures", str(tmp_path / "exported")])

    assert code == 1
    assert "! TensorFlow Serving: classify: " in capsys.readouterr().out


@pytest.mark.parametrize("command", ["signatures", "run"])
@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_files_of_keras_have_no_signatures(capsys, tmp_path, command, name):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.save(tmp_path / name)

    assert cli.main([command, str(tmp_path / name)]) == 2
    printed = capsys.readouterr().err
    assert "no signatures" in printed
    assert f"keras-metagraph convert {tmp_path / name} exported" in printed


def test_runs_a_signature(capsys, tmp_path):
    output = tmp_path / "out.npz"
    arguments = ["run", str(ESTIMATOR), "--examples", EXAMPLES, "--output", str(output)]

    assert cli.main(arguments) == 0

    printed = capsys.readouterr()
    assert "Outputs of serving_default" in printed.out
    assert f"written to {output}" in printed.out
    with np.load(output) as found:
        assert found["classes"].tolist() == [[b"0", b"1"]]
        assert found["scores"].shape == (1, 2)
    assert cli.main(arguments) == 2
    assert "exists" in capsys.readouterr().err
    assert cli.main([*arguments, "--force"]) == 0


def test_a_request_to_a_server_runs_here(capsys):
    request = json.dumps(
        {"signature_name": "regression", "examples": json.loads(EXAMPLES)}
    )
    assert cli.main(["run", str(ESTIMATOR), "--inputs-json", request, "--json"]) == 0

    printed = json.loads(capsys.readouterr().out)
    assert printed["signature_name"] == "regression"
    assert 0.0 < printed["outputs"]["outputs"][0][0] < 1.0


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_batches_of_any_size(capsys, tmp_path, count):
    np.savez(tmp_path / "x.npz", tokens=np.full((count, 4), b"good"))

    code = cli.main(["run", str(MULTI), "--inputs", str(tmp_path / "x.npz"), "--json"])

    outputs = json.loads(capsys.readouterr().out)["outputs"]
    assert code == 0
    assert {len(value) for value in outputs.values()} == {count}


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--signature", "nix"], ["no signature 'nix'", "'predict' with --tags serve"]),
        (["--tags", "train"], ["['serve']"]),
        (["--inputs-json", "{"], ["Expected JSON"]),
        (["--inputs-json", '{"inputs": [1]}'], ["serving_default", "inputs"]),
        (["--examples", "[{}]"], ["age"]),
        ([], ["inputs"]),
    ],
)
def test_a_run_that_fails_says_why(capsys, arguments, parts):
    assert cli.main(["run", str(ESTIMATOR), *arguments]) == 2

    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    for part in parts:
        assert part in printed.err


def test_all_inputs_that_do_not_fit_are_said_at_once(capsys):
    path = str(ZOO / "estimator_dnn" / "export_all")
    request = {"age": [22.0, 3.5, 1.0], "city": [[1]], "colour": [["red"]]}
    arguments = ["run", path, "--tags", "eval", "--inputs-json", json.dumps(request)]

    assert cli.main(arguments) == 2

    printed = capsys.readouterr().err
    for part in (
        "input 'age': has the shape [3], expected [None, 1]",
        "input 'city': holds int, expected strings",
        "input 'colour': unknown",
        "input 'color': missing",
        "input 'label': missing",
    ):
        assert part in printed


def test_a_file_without_signatures_is_not_run(capsys):
    assert cli.main(["run", str(ZOO / "mlp_adam")]) == 2
    assert "keras-metagraph convert" in capsys.readouterr().err


def test_a_file_is_run_that_reads_files_if_it_is_trusted(capsys, tmp_path):
    (tmp_path / "number").write_text("40")
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], "x")
        y = x + tf.strings.to_number(tf.io.read_file(str(tmp_path / "number")))
        path = str(tmp_path / "exported")
        v1.saved_model.simple_save(session, path, {"x": x}, {"y": y})
    arguments = ["run", path, "--inputs-json", '{"x": [2]}', "--json"]

    assert cli.main(arguments) == 2
    assert "ReadFile" in capsys.readouterr().err
    assert cli.main([*arguments, "--trust"]) == 0
    assert json.loads(capsys.readouterr().out)["outputs"] == {"y": [42.0]}


def test_converts(capsys, tmp_path):
    destination = tmp_path / "exported"

    assert cli.main(["convert", str(ZOO / "mlp_adam"), str(destination)]) == 0

    printed = capsys.readouterr().out
    assert "(saved_model)" in printed
    assert "Nothing was left out." in printed
    assert (destination / "saved_model.pb").is_file()
    assert cli.main(["convert", str(ZOO / "mlp_adam"), str(destination)]) == 2
    assert "there already" in capsys.readouterr().err
    arguments = ["convert", str(MULTI), str(tmp_path / "model"), "--to", "meta-graph"]
    assert cli.main([*arguments, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert sorted(printed["files"])[-1] == "model.meta"
    assert "the graph with the tags ['train']" in printed["lost"]


def test_imports_the_modules_that_are_named(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    (tmp_path / "own_layers.py").write_text(
        "import keras\n"
        "class Twice(keras.layers.Layer):\n"
        "    def call(self, x):\n"
        "        return 2.0 * x\n"
    )
    namespace = {}
    exec((tmp_path / "own_layers.py").read_text(), namespace)
    keras.Sequential([keras.Input((2,)), namespace["Twice"]()]).save("model.keras")

    assert cli.main(["convert", "model.keras", "exported"]) == 2
    assert "Twice" in capsys.readouterr().err
    assert (
        cli.main(["convert", "model.keras", "exported", "--import", "own_layerz"]) == 2
    )
    assert "own_layerz: ModuleNotFoundError" in capsys.readouterr().err
    assert (
        cli.main(["convert", "model.keras", "exported", "--import", "own_layers"]) == 0
    )
