"""How large the parts of a graph may be."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """Bounds for graphs from files; real graphs stay far below them.

    Attributes:
        nodes: Nodes of a graph and its functions together. The largest published
            training graphs have about 40,000.
        functions: Functions of the library.
        inputs: Inputs of one node.
        name_length: Characters of a node's or function's name.
        attributes: Attributes of one node.
        attribute_depth: How deep functions may be bound to functions in an attribute;
            protobuf stops at about 30.
        dimensions: Dimensions of a shape; TensorFlow has at most 254.
        tensor_bytes: Size of one constant in memory, for constants that are stored
            shorter than they are: `[1e9]` filled with one value takes 20 bytes in the
            file.
        filled_elements: Elements of a tensor that an op makes from a constant shape
            (`Fill`, random ops ...). TensorFlow makes it while it imports the graph.
        collection_values: Values of one collection.
        signatures: Signatures of one MetaGraph.
    """

    nodes: int = 2_000_000
    functions: int = 100_000
    inputs: int = 100_000
    name_length: int = 8192
    attributes: int = 1000
    attribute_depth: int = 16
    dimensions: int = 254
    tensor_bytes: int = 2**31
    filled_elements: int = 2**28
    collection_values: int = 2_000_000
    signatures: int = 10_000


DEFAULT_LIMITS = Limits()
"""What the loader applies."""
