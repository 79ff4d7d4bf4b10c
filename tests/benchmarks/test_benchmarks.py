import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PROGRAMS = sorted(
    path.stem
    for path in Path(__file__).parent.glob("*.py")
    if "report.arguments(" in path.read_text() and not path.stem.startswith("test_")
)


@pytest.mark.parametrize("name", PROGRAMS)
def test_benchmark_runs(name, tmp_path):
    paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]

    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--quick"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "Seconds" in done.stdout
