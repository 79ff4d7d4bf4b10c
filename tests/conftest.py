"""Settings and fixtures for every test."""

import os
from pathlib import Path

# Before TensorFlow is imported: the same numbers on every machine, and no noise.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"

import keras
import pytest

from oracle import environment
from oracle import tf115 as oracle


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests by the outside things that their fixtures ask for."""
    for item in items:
        names = getattr(item, "fixturenames", ())
        if "tf115" in names:
            item.add_marker(pytest.mark.parity)
        if "corpus" in names:
            item.add_marker(pytest.mark.corpus)


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Layer names, dtype policy and seeds do not depend on the test before."""
    keras.utils.clear_session(free_memory=False)  # a garbage collection takes 0.1 s
    keras.utils.set_random_seed(7)
    policy = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(policy)


@pytest.fixture(scope="session")
def tf115():
    """`run_tf115` of `oracle.tf115`: runs a script in real TensorFlow 1.15.5."""
    try:
        oracle.interpreter()
    except environment.OracleUnavailableError as error:
        if environment.required():
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    return oracle.run_tf115


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The directory of published exports, which is not part of the repository."""
    given = os.environ.get("KERAS_METAGRAPH_CORPUS")
    if not given:
        pytest.skip("KERAS_METAGRAPH_CORPUS is not set")
    return Path(given)
