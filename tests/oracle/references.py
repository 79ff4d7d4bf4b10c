"""The recorded results of the checked-in exports, in one form.

`tests/fixtures/zoo` and `tests/fixtures/versions` describe their exports in two
dialects of `reference.json`; see the two generators for them.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

FIXTURES = Path(__file__).parents[1] / "fixtures"

Arrays = dict[str, np.ndarray]


def recorded_sums(folder: Path) -> dict[str, str]:
    """What `SHA256SUMS` of a folder says of its files."""
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    return {path: digest for digest, path in (line.split("  ", 1) for line in lines)}


def sums_of(folder: Path) -> dict[str, str]:
    """The same of the files in the folders below, as they are."""
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(
            file.read_bytes()
        ).hexdigest()
        for file in folder.glob("*/**/*")
        if file.is_file()
    }


@dataclasses.dataclass(frozen=True)
class Source:
    """One graph with its weights, as a session would open it.

    Attributes:
        path: What `load_from_meta_graph` takes: a `.meta` or a SavedModel directory.
        kind: `"meta_graph"` or `"saved_model"`.
        checkpoint: The prefix beside a `.meta`.
        tags: The MetaGraph of a SavedModel.
    """

    path: Path
    kind: str
    checkpoint: Path | None = None
    tags: tuple[str, ...] | None = None

    @property
    def tf115(self) -> tuple[str, dict[str, Any]]:
        """The script and its settings that open this in TensorFlow 1.15."""
        if self.kind == "meta_graph":
            return "session", {"meta": self.path, "checkpoint": self.checkpoint}
        return "saved_model", {
            "saved_model": self.path,
            "tags": list(self.tags or ()),
        }


@dataclasses.dataclass(frozen=True)
class SignatureRun:
    """One signature of a SavedModel, run once."""

    label: str
    source: Source
    signature: str
    inputs: Arrays
    outputs: Arrays


@dataclasses.dataclass(frozen=True)
class Training:
    """Further steps of `[loss, train_op]`, from the saved state on.

    Attributes:
        source: The graph they were run in; not always the one for inference.
        loss: Tensor name.
        train_op: Operation name.
        feeds: Key to tensor name, one value a step.
        arrays: Key to `(steps, batch, ...)`.
        constants: Tensor name to the value that is fed at every step.
        edits: `Const` node to the value that it was given for the steps.
        losses: `(steps,)`, before each update.
        after: Every trainable variable after the steps, by its node's name.
        after_state: Every other variable after them: slots, averages, counters.
    """

    source: Source
    loss: str
    train_op: str
    feeds: dict[str, str]
    arrays: Arrays
    constants: dict[str, Any]
    edits: dict[str, Any]
    losses: np.ndarray
    after: Arrays
    after_state: Arrays

    def feed(self, step: int) -> dict[str, Any]:
        """What a session is fed at a step: tensor name to value."""
        fed = {tensor: self.arrays[key][step] for key, tensor in self.feeds.items()}
        return fed | self.constants


@dataclasses.dataclass(frozen=True)
class Export:
    """An export and what was recorded of it.

    Attributes:
        name: `zoo/mlp_adam`, `versions/1.4.0/lstm_rmsprop`.
        folder: Where it lies.
        tf_version: The release that wrote it.
        source: The graph that inference was run in.
        feeds: Key to tensor name, for inference.
        fetches: Key to tensor name.
        inputs: Key to the array fed.
        outputs: Key to the array fetched.
        is_training: The placeholder that says so, or None.
        training: The recorded steps, or None if it is not trained.
        optimizer: Class (`class`) and settings, as recorded.
        signatures: The signature runs, of SavedModels.
        info: The whole `reference.json`.
    """

    name: str
    folder: Path
    tf_version: str
    source: Source
    feeds: dict[str, str]
    fetches: dict[str, str]
    inputs: Arrays
    outputs: Arrays
    is_training: str | None
    training: Training | None
    optimizer: dict[str, Any] | None
    signatures: tuple[SignatureRun, ...]
    info: dict[str, Any]

    def __repr__(self) -> str:
        # As the id of a parametrized test, and in its output.
        return self.name


@functools.cache
def exports() -> tuple[Export, ...]:
    """Every checked-in export, by name."""
    return tuple(
        sorted(
            [
                *(_zoo(folder) for folder in _folders("zoo/*")),
                *(_version(folder) for folder in _folders("versions/*/*")),
            ],
            key=lambda export: export.name,
        )
    )


def trainable_exports() -> tuple[Export, ...]:
    """Those that have recorded training steps."""
    return tuple(export for export in exports() if export.training)


def export(name: str) -> Export:
    """The export of a name, such as `zoo/mlp_adam`.

    Raises:
        KeyError: If there is none.
    """
    found = {each.name: each for each in exports()}
    if name not in found:
        raise KeyError(f"{name!r}; there are {sorted(found)}")
    return found[name]


def _folders(pattern: str) -> Iterator[Path]:
    for reference in sorted(FIXTURES.glob(f"{pattern}/reference.json")):
        yield reference.parent


def _zoo(folder: Path) -> Export:
    """Reads the dialect of make_zoo.py."""
    info, arrays = _read(folder)
    return Export(
        name=_name(folder),
        folder=folder,
        tf_version=info["tf_version"],
        source=_zoo_source(folder, info["inference_from"]),
        feeds=_tensors(info["feeds"]),
        fetches=_tensors(info["fetches"]),
        inputs=_under(arrays, "in/"),
        outputs=_under(arrays, "out/"),
        is_training=info["is_training"],
        training=_zoo_training(folder, info, arrays),
        optimizer=info["optimizer"],
        signatures=tuple(
            SignatureRun(
                label=run["label"],
                source=_zoo_source(
                    folder, {"saved_model": run["path"], "tags": run["tags"]}
                ),
                signature=run["signature"],
                inputs=_under(arrays, f"{run['label']}/in/"),
                outputs=_under(arrays, f"{run['label']}/out/"),
            )
            for run in info["signature_runs"]
        ),
        info=info,
    )


def _zoo_training(
    folder: Path, info: dict[str, Any], arrays: Arrays
) -> Training | None:
    if info["training_from"] is None:
        return None
    return Training(
        source=_zoo_source(folder, info["training_from"]),
        loss=info["loss"],
        train_op=info["train_op"],
        feeds=_tensors(info["train_feeds"]),
        arrays={key: arrays[f"train_{key}"] for key in info["train_feeds"]},
        constants=info["train_constants"],
        edits=info["train_edits"],
        losses=arrays["train_losses"],
        after=_under(arrays, "after/"),
        after_state=_under(arrays, "after_state/"),
    )


def _zoo_source(folder: Path, recorded: dict[str, Any]) -> Source:
    if "meta" in recorded:
        return Source(
            path=folder / recorded["meta"],
            kind="meta_graph",
            checkpoint=folder / recorded["checkpoint"],
        )
    return Source(
        path=folder / recorded["saved_model"],
        kind="saved_model",
        tags=tuple(recorded["tags"]),
    )


def _version(folder: Path) -> Export:
    """Reads the dialect of make_versions.py."""
    info, arrays = _read(folder)
    recorded = info["export"]
    saved_model = recorded["format"] == "SavedModel"
    source = Source(
        path=folder if saved_model else folder / recorded["meta"],
        kind="saved_model" if saved_model else "meta_graph",
        checkpoint=None if saved_model else folder / recorded["checkpoint"],
        tags=tuple(recorded["tags"]) if saved_model else None,
    )
    # Inference fed is_training False and the labels too, which no output needs.
    flag = info["is_training"]
    feeds, inputs = {"x": info["feeds"]["x"]}, {"x": arrays["x"]}
    if flag:
        feeds["is_training"], inputs["is_training"] = flag, np.array(False)
    outputs = _under(arrays, "output/")
    runs = ()
    if saved_model:
        given = {"x": arrays["x"]}
        run = SignatureRun("predict", source, recorded["signature"], given, outputs)
        runs = (run,)
    return Export(
        name=_name(folder),
        folder=folder,
        tf_version=info["tf_version"],
        source=source,
        feeds=feeds,
        fetches=info["fetches"],
        inputs=inputs,
        outputs=outputs,
        is_training=flag,
        training=_version_training(source, info, arrays),
        optimizer=_version_optimizer(info["optimizer"]),
        signatures=runs,
        info=info,
    )


def _version_training(source: Source, info: dict[str, Any], arrays: Arrays) -> Training:
    after = _under(arrays, "after/")
    trainable = set(info["trainable"])
    return Training(
        source=source,
        loss=info["loss"],
        train_op=info["train_op"],
        feeds={"x": info["feeds"]["x"], "y": info["feeds"]["y"]},
        arrays={"x": arrays["train_x"], "y": arrays["train_y"]},
        constants={info["is_training"]: True} if info["is_training"] else {},
        edits={},
        losses=arrays["train_losses"],
        after={name: after[name] for name in after if name in trainable},
        after_state={name: after[name] for name in after if name not in trainable},
    )


def _version_optimizer(recorded: dict[str, Any]) -> dict[str, Any]:
    settings = {key: value for key, value in recorded.items() if key != "name"}
    return {"class": f"{recorded['name']}Optimizer", **settings}


def _read(folder: Path) -> tuple[dict[str, Any], Arrays]:
    info = json.loads((folder / "reference.json").read_text())
    with np.load(folder / "reference.npz") as stored:
        return info, dict(stored)


def _name(folder: Path) -> str:
    return folder.relative_to(FIXTURES).as_posix()


def _tensors(specs: dict[str, Any]) -> dict[str, str]:
    return {key: spec["tensor"] for key, spec in specs.items()}


def _under(arrays: Arrays, prefix: str) -> Arrays:
    return {
        key.removeprefix(prefix): value
        for key, value in arrays.items()
        if key.startswith(prefix)
    }
