"""Looks at graphs from files before TensorFlow sees them.

`import_graph_def` itself runs ops: shape inference evaluates constant subgraphs, which
read files, open sockets or crash the process. So everything here is pure Python on the
parsed protos, and what is not known to be harmless is refused.
"""

from keras_metagraph.audit.limits import DEFAULT_LIMITS, Limits
from keras_metagraph.audit.policy import Finding, audit_ops, require_safe
from keras_metagraph.audit.structure import check_structure
from keras_metagraph.audit.tensors import decode_tensor

__all__ = [
    "DEFAULT_LIMITS",
    "Finding",
    "Limits",
    "audit_ops",
    "check_structure",
    "decode_tensor",
    "require_safe",
]
