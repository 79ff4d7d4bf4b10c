import pytest

from first_programs.classifier import write_classifier


@pytest.fixture
def classifier(tmp_path) -> str:
    """The prefix of a classifier that was trained for one step of four."""
    return write_classifier(tmp_path)
