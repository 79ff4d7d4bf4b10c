"""Methods of a model that are signatures of it: the decorator, and who finds them."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from keras_metagraph.errors import SignatureError, nearest
from keras_metagraph.export.signatures import CLASSIFY, PREDICT, REGRESS
from keras_metagraph.signatures.api import (
    classify_signature,
    predict_signature,
    regress_signature,
)
from keras_metagraph.signatures.signature import Signature

_DECLARATION = "_meta_graph_signature"
_MADE = "_meta_graph_declared"
_METHODS = {"predict": PREDICT, "classify": CLASSIFY, "regress": REGRESS}

MethodT = TypeVar("MethodT", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True)
class _Declaration:
    """What the decorator was given."""

    inputs: Any
    name: str | None
    method: str
    options: Mapping[str, Any]

    def of(self, model: Any, attribute: str) -> Signature:
        """The signature of a model's method."""
        made = self.maker(getattr(model, attribute), self.inputs, **self.options)
        return dataclasses.replace(
            made, method_name=self.method_name, name=self.key(attribute), model=model
        )

    def key(self, attribute: str) -> str:
        """The key of the signature: that of the method, unless there is another."""
        return attribute if self.name is None else self.name

    @property
    def method_name(self) -> str:
        return _METHODS.get(self.method, self.method)

    @property
    def maker(self) -> Callable[..., Signature]:
        return _MAKERS.get(self.method_name, predict_signature)

    def findings(self) -> list[str]:
        """What no model can make a signature of."""
        found = []
        if isinstance(self.inputs, str):
            found.append(f"inputs={self.inputs!r} is a text: its key is name=")
        if "/" not in self.method_name:
            close = nearest(self.method, _METHODS)
            found.append(
                f"method={self.method!r} is none of {list(_METHODS)}, and no full "
                f"name{close}"
            )
        known = inspect.signature(self.maker).parameters
        found += [
            f"{name}= is not known to {self.maker.__name__}{nearest(name, known)}"
            for name in self.options
            if name not in known
        ]
        return found


_MAKERS: Mapping[str, Callable[..., Signature]] = {
    CLASSIFY: classify_signature,
    REGRESS: regress_signature,
}


def signature(
    inputs: Any = None,
    *,
    name: str | None = None,
    method: str = "predict",
    **options: Any,
) -> Callable[[MethodT], MethodT]:
    """Declares a method of a model to be an endpoint of it; several, when repeated.

    Whatever writes the model writes the signature too, as it writes those of the
    methods that a class inherits. The method itself stays as it is. A signature
    `serving_default` takes the place of the one that each model has.

    Args:
        inputs: What the method takes: one `tf.TensorSpec`, a list with one entry an
            argument, or a dict by argument. Entries may be nested structures. None for
            a `tf.function` with an input signature.
        name: Key of the signature; the method's name by default.
        method: `"predict"`, `"classify"`, `"regress"`, or the full method name of
            another kind, such as `"my/own/method"`.
        **options: Further arguments of `predict_signature`, `classify_signature` or
            `regress_signature`.

    Returns:
        What declares the method it is given.

    Raises:
        SignatureError: If arguments are of no use; lists all of them.

    Example:
        ```python
        class Encoder(keras.Model):
            @kmg.signature(tf.TensorSpec([None, 3], tf.float32), name="embed")
            def embed(self, x):
                return {"embedding": self.encoder(x)}
        ```
    """
    if inspect.isroutine(inputs) or hasattr(inputs, "get_concrete_function"):
        bare: Callable[[MethodT], MethodT] = signature()(inputs)
        return bare  # `@signature`, without arguments
    declaration = _Declaration(inputs, name, method, options)
    findings = declaration.findings()
    if findings:
        raise SignatureError(
            "These are no arguments of a signature:",
            findings=findings,
            fix='decorate with @kmg.signature(specs, name="key", method="classify").',
        )

    def declare(function: MethodT) -> MethodT:
        earlier = getattr(function, _DECLARATION, ())
        setattr(function, _DECLARATION, (*earlier, declaration))
        return function

    return declare


def declared_signatures(model: Any) -> dict[str, Signature]:
    """The signatures of a model's decorated methods, by key.

    Those of a model stay the same objects, so that its export can be kept.

    Args:
        model: A Keras model.

    Returns:
        Signatures; of a method that overrides a decorated one too.

    Raises:
        SignatureError: If methods do not fit their declarations, or have one key;
            lists all findings.
    """
    made: dict[str, Signature] = vars(model).setdefault(_MADE, {})
    owners: dict[str, str] = {}
    findings: list[str] = []
    for attribute, declaration in _declarations(type(model)):
        key = declaration.key(attribute)
        if key in owners:
            findings.append(f"{owners[key]!r} and {attribute!r} both declare {key!r}")
            continue
        owners[key] = attribute
        try:
            if key not in made:
                made[key] = declaration.of(model, attribute)
        except SignatureError as error:
            findings += [f"{key}: {each}" for each in error.findings or [error.problem]]
    if findings:
        raise SignatureError(
            f"Decorated methods of the model {model.name!r} cannot be signatures.",
            findings=findings,
            fix="change the arguments of kmg.signature, or what the methods return.",
        )
    return {key: made[key] for key in owners}


def _declarations(kind: type) -> list[tuple[str, _Declaration]]:
    """The declarations of a class with their methods, the most derived of each."""
    found: dict[str, tuple[_Declaration, ...]] = {}
    for base in reversed(kind.__mro__):
        for attribute, value in vars(base).items():
            # A static method does not have what its function has.
            inner = getattr(value, "__func__", None)
            declared = (*_declared(inner), *_declared(value))
            if declared:
                found[attribute] = declared
    return [(attribute, each) for attribute, all_ in found.items() for each in all_]


def _declared(value: Any) -> tuple[_Declaration, ...]:
    declared = getattr(value, _DECLARATION, ())
    return declared if isinstance(declared, tuple) else ()
