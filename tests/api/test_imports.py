"""What an import of the package costs, told by the modules that it loads."""

import json
import subprocess
import sys

import keras_metagraph as kmg

_PROGRAM = """
import json, sys
{before}
known = set(sys.modules)
{after}
print(json.dumps(sorted(set(sys.modules) - known)))
"""


def _loaded(before: str, after: str) -> set[str]:
    """The modules that `after` loads in a new interpreter where `before` ran."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(before=before, after=after)],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_package_loads_nothing():
    loaded = _loaded("import importlib, typing", "import keras_metagraph")

    assert loaded == {"keras_metagraph"}


def test_listing_the_names_loads_nothing():
    loaded = _loaded("import keras_metagraph", "dir(keras_metagraph)")

    assert loaded == set()


def test_errors_load_neither_keras_nor_tensorflow():
    loaded = _loaded("", "import keras_metagraph; keras_metagraph.errors")

    assert not {name.split(".")[0] for name in loaded} & {"keras", "tensorflow"}


def test_all_names_add_only_this_package_to_keras_and_tensorflow():
    use = "; ".join(f"keras_metagraph.{name}" for name in kmg.__all__)
    loaded = _loaded("import keras, tensorflow", f"import keras_metagraph; {use}")

    others = {name for name in loaded if name.split(".")[0] != "keras_metagraph"}
    third_party = {name.split(".")[0] for name in others} - sys.stdlib_module_names
    # What extension modules that Cython made have in common: numpy.random's are such.
    third_party = {name for name in third_party if not name.startswith("_cython_")}
    assert third_party <= {"google", "h5py", "ml_dtypes", "numpy", "tensorflow"}
    assert len(others) <= 60
