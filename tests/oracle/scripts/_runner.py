"""Runs main(arrays, args) of a script: _runner.py SCRIPT FOLDER

FOLDER holds in.npz and in.json (the arrays and their names) and args.json; out.npz and
out.json are written to it.
"""

import json
import os
import runpy
import sys

import numpy as np


def storable(key, value):
    """The value as an array that np.load reads without pickle."""
    value = np.asarray(value)
    if value.dtype == object:
        strings = np.array(value.tolist(), dtype="S")
        if strings.tolist() != value.tolist():
            raise ValueError(key + ": strings with trailing zero bytes do not survive")
        return strings
    return value


def main():
    """Reads the arrays, runs the script, writes what it returns."""
    script, folder = sys.argv[1:]
    with open(os.path.join(folder, "in.json")) as file:
        keys = json.load(file)
    with open(os.path.join(folder, "args.json")) as file:
        args = json.load(file)
    with np.load(os.path.join(folder, "in.npz")) as stored:
        arrays = {key: stored[f"arr_{i}"] for i, key in enumerate(keys)}
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    results = runpy.run_path(script)["main"](arrays, args)
    values = [storable(key, value) for key, value in results.items()]
    np.savez(os.path.join(folder, "out.npz"), *values)
    with open(os.path.join(folder, "out.json"), "w") as file:
        json.dump(list(results), file)


if __name__ == "__main__":
    main()
