"""Makes signatures of models, methods and functions."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_metagraph.errors import SignatureError, nearest
from keras_metagraph.export.signatures import CLASSIFY, PREDICT, REGRESS
from keras_metagraph.signatures.examples import SERIALIZED, ExampleParser, make_parser
from keras_metagraph.signatures.features import wrong_features
from keras_metagraph.signatures.heads import (
    CLASSES,
    SCORES,
    Head,
    classification,
    own_classification,
    regression,
)
from keras_metagraph.signatures.signature import Signature
from keras_metagraph.signatures.target import Target, as_target
from keras_metagraph.signatures.traced import TracedTarget

INPUTS = "inputs"
EXAMPLES = "examples"


def predict_signature(
    target: Any, inputs: Any = None, outputs: Any = None, *, examples: Any = None
) -> Signature:
    """Makes a predict signature: any tensors in, any tensors out.

    Args:
        target: A Keras model, or a function on tensors: a method, a `tf.function`.
        inputs: What it takes. For a model the structure of its inputs, or new keys
            for them, `{"x": model.input}`; for a function one spec, a list with one
            entry an argument, or a dict by argument. Entries may be nested. None for
            a model or `tf.function` that knows.
        outputs: Names of the outputs in their order, or a dict from names to output
            keys or, for a functional model, to any of its tensors. None for all
            outputs by their own keys.
        examples: What makes the signature take serialized `tf.Example`s, in one input
            `examples`: True for features that follow from the inputs, or what differs
            from these: a dict of `tf.io` features, `EncodedImage`s and preprocessing
            layers by input key, a `keras.utils.FeatureSpace`, or a function that
            parses.

    Returns:
        The signature. Nested structures are flattened to keys: dict keys joined by
        `_`, names of inputs and outputs, or else `input`, `output`.

    Raises:
        SignatureError: If `target` does not say what it takes, or names do not fit.
        ExportError: If a model has never seen data, or the function cannot be traced.

    Example:
        ```python
        signatures = {
            "predict": kmg.predict_signature(model, examples=True),
            "raw": kmg.predict_signature(model),
        }
        kmg.save_meta_graph(model, "run/model", signatures=signatures)
        ```
    """
    _check_names(outputs)
    found = as_target(*_part(target, inputs, outputs))
    select = _selection(found, outputs)
    if examples is None or examples is False:
        return Signature(
            PREDICT,
            found.inputs,
            lambda **tensors: select(found.outputs(tensors)),
            found.name,
            found.model,
        )
    return _on_examples(PREDICT, EXAMPLES, found, examples, select)


def classify_signature(
    target: Any,
    inputs: Any = None,
    *,
    output: str | None = None,
    outputs: Sequence[str] = (CLASSES, SCORES),
    labels: Any = None,
    top_k: int | None = None,
    from_logits: bool | None = None,
    examples: Any = None,
) -> Signature:
    """Makes a classify signature: serialized examples in, classes and scores out.

    Args:
        target: A Keras model, or a function on tensors, that gives a score a class;
            or, for two classes, one of the second class. One that gives `classes`,
            and perhaps `scores`, is taken as it is.
        inputs: What it takes, as in `predict_signature`.
        output: Which of its outputs has the scores, if there are several.
        outputs: What to give: `"classes"`, `"scores"`, or both.
        labels: Texts by class id: a list, or a `StringLookup` layer. None for the ids
            as texts.
        top_k: How many classes to give, the best first. None for all, by id.
        from_logits: Whether the output is logits. None finds out: by the activation
            that the output comes from, or by the loss of the model.
        examples: How an example is parsed, as in `predict_signature`; False for a
            function that takes serialized examples itself.

    Returns:
        The signature. It takes `inputs`, strings `(batch,)`, and gives `classes`,
        strings `(batch, k)`, and `scores`, float32 `(batch, k)`.

    Raises:
        SignatureError: If outputs, labels or options do not fit; lists all of it.
        ExportError: If a model has never seen data, or the function cannot be traced.

    Example:
        ```python
        signature = kmg.classify_signature(model, labels=["cat", "dog"], top_k=1)
        signature([example.SerializeToString()])["classes"]
        ```
    """
    found = as_target(target, inputs)
    traced = TracedTarget(found)
    wanted = (outputs,) if isinstance(outputs, str) else tuple(outputs)
    if output is None and CLASSES in traced.outputs:
        options = {"labels": labels, "top_k": top_k, "from_logits": from_logits}
        head = own_classification(traced, wanted, options)
    else:
        head = classification(
            traced, traced.only_output(output), wanted, labels, top_k, from_logits
        )
    return _on_examples(CLASSIFY, INPUTS, found, examples, head)


def regress_signature(
    target: Any, inputs: Any = None, *, output: str | None = None, examples: Any = None
) -> Signature:
    """Makes a regress signature: serialized examples in, one number each out.

    Args:
        target: A Keras model, or a function on tensors, that gives one number an
            example.
        inputs: What it takes, as in `predict_signature`.
        output: Which of its outputs, if there are several.
        examples: How an example is parsed, as in `predict_signature`; False for a
            function that takes serialized examples itself.

    Returns:
        The signature. It takes `inputs`, strings `(batch,)`, and gives `outputs`,
        float32 `(batch,)` or `(batch, 1)`.

    Raises:
        SignatureError: If the output is not one number an example.
        ExportError: If a model has never seen data, or the function cannot be traced.

    Example:
        ```python
        signature = kmg.regress_signature(model)
        signature([example.SerializeToString()])["outputs"]
        ```
    """
    found = as_target(target, inputs)
    traced = TracedTarget(found)
    head = regression(traced, traced.only_output(output))
    return _on_examples(REGRESS, INPUTS, found, examples, head)


def _on_examples(
    method_name: str, key: str, found: Target, examples: Any, head: Head
) -> Signature:
    """A signature that takes serialized examples under one key."""
    if examples is False:
        return _on_serialized(method_name, key, found, head)
    given = None if examples is True else examples
    parser = make_parser(found.name, found.inputs, given, found.model)
    return Signature(
        method_name,
        {key: SERIALIZED},
        lambda **serialized: head(found.outputs(parser(serialized[key]))),
        found.name,
        found.model,
        explain=_explanation(parser, key),
    )


def _on_serialized(method_name: str, key: str, found: Target, head: Head) -> Signature:
    """A signature of a function that parses examples itself."""
    only = list(found.inputs.items())
    if len(only) != 1 or not SERIALIZED.is_compatible_with(only[0][1]):
        raise SignatureError(
            f"{found.name!r} does not take serialized examples: a vector of strings. "
            f"Received: inputs={found.inputs}",
            fix="pass inputs=tf.TensorSpec([None], tf.string), or leave examples=False "
            "out.",
        )
    return Signature(
        method_name,
        {key: SERIALIZED},
        lambda **serialized: head(found.outputs({only[0][0]: serialized[key]})),
        found.name,
        found.model,
    )


def _explanation(parser: Any, key: str) -> Any:
    """What explains why examples could not be parsed."""
    if not isinstance(parser, ExampleParser):
        return None
    features, checks = parser.features, parser.checks
    return lambda tensors: wrong_features(features, tensors[key].numpy(), checks)


def _check_names(outputs: Any) -> None:
    """Refuses outputs that do not say how they are called."""
    given = [outputs] if isinstance(outputs, str) or outputs is None else outputs
    if isinstance(given, keras.KerasTensor) or not all(
        isinstance(name, str | None) for name in given
    ):
        raise SignatureError(
            f"outputs are names. Received: outputs={outputs!r}",
            fix="pass names in the order of the outputs, or a dict from names to "
            "output keys or tensors.",
        )


def _part(target: Any, inputs: Any, outputs: Any) -> tuple[Any, Any]:
    """The part of a functional model between tensors, where these are asked for.

    Returns:
        The part, or else the target itself; and what it takes.

    Raises:
        SignatureError: If there is no such part.
    """
    if not isinstance(target, keras.Model) or not getattr(target, "inputs", None):
        return target, inputs
    ends = _tensors(outputs)
    starts = _tensors(inputs)
    own = {id(tensor) for tensor in target.inputs}
    if not ends and {id(tensor) for tensor in starts.values()} <= own:
        return target, inputs
    only = isinstance(target, keras.Sequential)
    try:
        part = keras.Model(
            list(starts.values()) or (target.inputs[0] if only else target.input),
            dict(outputs) if ends else target.outputs[0] if only else target.output,
            name=target.name,
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise SignatureError(
            f"No part of the model {target.name!r} leads from these inputs to these "
            f"outputs: {error}",
            fix="pass its tensors: {'x': model.inputs[0]}, {'y': layer.output}.",
        ) from error
    return part, dict(zip(starts, part.inputs, strict=True)) if starts else inputs


def _tensors(named: Any) -> dict[str, Any]:
    """The symbolic tensors of an argument that may have some, by key."""
    values = named if isinstance(named, Mapping) else {}
    return {k: v for k, v in values.items() if isinstance(v, keras.KerasTensor)}


def _selection(found: Target, outputs: Any) -> Head:
    """What gives the outputs that were asked for their names."""
    if outputs is None:
        return lambda values: values
    known = list(TracedTarget(found).outputs)
    if isinstance(outputs, Mapping):
        chosen = {
            name: name if isinstance(key, keras.KerasTensor) else key
            for name, key in outputs.items()
        }
    else:
        names = [outputs] if isinstance(outputs, str) else list(outputs)
        if len(names) != len(known):
            raise SignatureError(
                f"{found.name!r} has the outputs {known}. Received: outputs={names}",
                fix="give one name an output, or a dict from names to outputs.",
            )
        chosen = dict(zip(names, known, strict=True))
    findings = [
        f"there is no output {key!r}{nearest(str(key), known)}"
        for key in chosen.values()
        if key not in known
    ]
    if findings:
        raise SignatureError(
            f"{found.name!r} has not all of these outputs.",
            findings=findings,
            fix=f"it has {known}.",
        )
    return lambda values: {name: values[key] for name, key in chosen.items()}
