"""Keras optimizers whose step is that of an optimizer of TensorFlow 1.

Where Keras has an optimizer of the same name, this is what differs: state and settings
are TensorFlow 1's own, so that training goes on from a checkpoint with the very next
step; and a sparse gradient, as an embedding has, is used as TensorFlow 1 does, mostly
for the rows that it names and for no others. (Keras squares the rows of one index, and
then adds them; TensorFlow 1 adds them first.)

They work under `tf.distribute`. With `jit_compile=True`, XLA has none of the ops for
sparse gradients. A process that loads a `.keras` file with one of them imports this
module before, as for any custom class.
"""

from keras_metagraph.training.optimizers.adam import (
    TF1Adam,
    TF1AdaMax,
    TF1AdamW,
    TF1LazyAdam,
    TF1Nadam,
)
from keras_metagraph.training.optimizers.adaptive import (
    TF1Adadelta,
    TF1Adagrad,
    TF1AdagradDA,
    TF1RMSProp,
)
from keras_metagraph.training.optimizers.bert import BertAdamW, BertLAMB
from keras_metagraph.training.optimizers.descent import (
    TF1AddSign,
    TF1GradientDescent,
    TF1Momentum,
    TF1MomentumW,
    TF1PowerSign,
)
from keras_metagraph.training.optimizers.group import OptimizerGroup
from keras_metagraph.training.optimizers.proximal import (
    TF1Ftrl,
    TF1ProximalAdagrad,
    TF1ProximalGradientDescent,
)
from keras_metagraph.training.optimizers.tf_keras import (
    TFKerasAdagrad,
    TFKerasAdam,
    TFKerasNadam,
    TFKerasRMSprop,
    TFKerasSGD,
)

__all__ = [
    "BertAdamW",
    "BertLAMB",
    "OptimizerGroup",
    "TF1AdaMax",
    "TF1Adadelta",
    "TF1Adagrad",
    "TF1AdagradDA",
    "TF1Adam",
    "TF1AdamW",
    "TF1AddSign",
    "TF1Ftrl",
    "TF1GradientDescent",
    "TF1LazyAdam",
    "TF1Momentum",
    "TF1MomentumW",
    "TF1Nadam",
    "TF1PowerSign",
    "TF1ProximalAdagrad",
    "TF1ProximalGradientDescent",
    "TF1RMSProp",
    "TFKerasAdagrad",
    "TFKerasAdam",
    "TFKerasNadam",
    "TFKerasRMSprop",
    "TFKerasSGD",
]
