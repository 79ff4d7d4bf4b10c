"""Builds the MetaGraphDef of a model: graph, saver, signatures, collections."""

import dataclasses
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf

from keras_metagraph.errors import ExportError
from keras_metagraph.export.captures import bind_captures, further_variables
from keras_metagraph.export.collections import OWN, write_collections
from keras_metagraph.export.description import describe
from keras_metagraph.export.downgrade import downgrade, explain, strip_notes
from keras_metagraph.export.flatten import Placed, place_trace
from keras_metagraph.export.meta_info import OLD_VERSION, write_meta_info
from keras_metagraph.export.names import GLOBAL_STEP, NamedVariable, named_variables
from keras_metagraph.export.op_list import strip_default_attributes, write_op_list
from keras_metagraph.export.options import ExportOptions
from keras_metagraph.export.outputs import Outputs, predict_outputs, step_outputs
from keras_metagraph.export.placeholders import (
    add_placeholders,
    named_leaves,
    placeholder_tensors,
)
from keras_metagraph.export.scoped import UNBOUND, in_scope, take_scope, without_scope
from keras_metagraph.export.signatures import (
    DEFAULT_KEY,
    EVAL,
    PREDICT,
    TRAIN,
    write_signature,
    write_user_signatures,
)
from keras_metagraph.export.specs import NamedSpec
from keras_metagraph.export.tracing import Traced, trace_model
from keras_metagraph.export.variables import (
    VariableNodes,
    add_group,
    add_saver,
    add_variable,
)
from keras_metagraph.graph.ir import Graph
from keras_metagraph.graph.to_proto import graph_to_proto

_LARGEST_MESSAGE = (1 << 31) - 1
