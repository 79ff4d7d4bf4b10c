"""Keeps hyper-parameters, labels and names of tensors in the collections of a file.

Any process that reads the `.meta` finds them, TensorFlow 1 with `tf.get_collection`.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import dataclasses
import tempfile

import keras
import tensorflow.compat.v1 as tf1
from google.protobuf.struct_pb2 import Struct
from rich import print

import keras_metagraph as kmg


@dataclasses.dataclass
class HParams:
    """Values of a class of one's own: `to_proto` writes, `from_proto` reads."""

    units: int
    rate: float

    def to_proto(self) -> Struct:
        """The message that the file holds."""
        message = Struct()
        message.update(dataclasses.asdict(self))
        return message

    @classmethod
    def from_proto(cls, message: Struct) -> "HParams":
        """The object that a message describes."""
        return cls(int(message["units"]), message["rate"])


class Classifier(kmg.MetaGraphMixin, keras.Model):
    """A functional model with the methods of the mixin."""


hparams = HParams(units=8, rate=0.01)
inputs = keras.Input((4,), name="x")
hidden = keras.layers.Dense(hparams.units, activation="relu", name="hidden")(inputs)
model = Classifier(
    inputs, keras.layers.Dense(3, activation="softmax", name="kind")(hidden)
)
model.add_to_collection("hparams", hparams)
model.add_to_collection("activations", "hidden/Relu:0")
for label in ("setosa", "versicolor", "virginica"):
    model.add_to_collection("classes", label)

with tempfile.TemporaryDirectory() as folder:
    prefix = model.save_meta_graph(f"{folder}/model", collections={"seen": [150]})

    with tf1.Graph().as_default():
        tf1.train.import_meta_graph(f"{prefix}.meta")
        for name in ("hparams", "classes", "activations", "seen"):
            print(f"TensorFlow 1 has {name}:", tf1.get_collection(name))

    again = kmg.load_from_meta_graph(prefix, {"Classifier": Classifier})

found = again.meta_graph.collections
stored = HParams.from_proto(Struct.FromString(found["hparams"][0]))
print("Keras has", stored, "and", b", ".join(found["classes"]).decode())
assert stored == hparams
assert found["classes"] == [b"setosa", b"versicolor", b"virginica"]
assert found["seen"] == [150]
assert found["activations"] == ["hidden/Relu:0"]
