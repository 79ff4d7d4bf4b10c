"""Cost of `import keras_metagraph` on top of Keras and TensorFlow.

Each figure is of fresh processes, which import Keras and TensorFlow first.
"""

import json
import os
import subprocess
import sys

from benchmarks import report

_PROGRAM = """
import json, sys, time
start = time.perf_counter()
import tensorflow, keras
before = time.perf_counter()
import keras_metagraph
imported = time.perf_counter()
for name in keras_metagraph.__all__:
    getattr(keras_metagraph, name)
used = time.perf_counter()
print(json.dumps([before - start, imported - before, used - imported]))
"""
_ROWS = (
    "import tensorflow, keras",
    "import keras_metagraph, after that",
    "first use of every public name, after that",
)


def main() -> None:
    """See above."""
    given = report.arguments(__doc__.splitlines()[0])
    report.say_where()
    series = [report.Series() for _ in _ROWS]
    # The first process is not measured: it finds nothing in the page cache.
    for count in range(1 + (1 if given.quick else 3 * given.rounds)):
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdout=subprocess.PIPE,
            check=True,
        )
        if count:
            for each, taken in zip(series, json.loads(done.stdout), strict=True):
                each.seconds.append(taken)
    report.table(
        "Imports, in fresh processes",
        ["", "seconds"],
        [[row, str(each)] for row, each in zip(_ROWS, series, strict=True)],
    )


if __name__ == "__main__":
    main()
