"""The graph of layers inside a Keras model: the one owner of what Keras keeps to itself about it.

Keras has no public way to walk through a functional model. Everything here rests on private attributes of Keras 3;
`tests/test_keras_graph.py` tests each of them by its name, so that a new Keras says at once what it changed. Other
rooms of the package ask these functions and touch no private name of Keras themselves.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras.src.models.functional import Functional
from keras.src.ops.node import Node as Node
from keras.src.utils import module_utils


def functional_graph(operation: keras.Operation, *, plain: bool = False) -> keras.Function | None:
    """The graph of a functional model, or of a `keras.Sequential` that was built.

    Args:
        operation: Any model, layer or operation.
        plain: Only if calling `operation` does no more than run its graph: Keras' own classes, none derived from them,
            which may have a `call` of their own.

    Returns:
        The graph, with `inputs` and `outputs`; None for what has none, such as a layer or a subclassed model.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
        >>> functional_graph(model).outputs[0].shape
        (None, 2)
        >>> functional_graph(model.layers[0]) is None
        True
    """
    if plain and type(operation) not in (keras.Sequential, Functional):
        return None
    graph = getattr(operation, "_functional", None) or operation  # where a Sequential keeps its graph
    return graph if isinstance(graph, keras.Function) else None


def nodes_in_order(graph: keras.Function) -> list[Node]:
    """Each application of an operation in a graph, in the order in which data would pass them.

    Args:
        graph: See `functional_graph`.

    Returns:
        Nodes, the graph's inputs among them. A node has `operation`, `is_input`, the symbolic tensors `input_tensors`
        and `outputs`, and `arguments` (`args`, `kwargs`, `fill_in`): how the operation was called.
    """
    by_depth = graph._nodes_by_depth  # an output has depth 0, what it is computed from is deeper
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def producing_node(tensor: keras.KerasTensor) -> Node:
    """The node that a symbolic tensor comes from; see `nodes_in_order`."""
    operation, node_index, _ = tensor._keras_history
    return operation._inbound_nodes[node_index]


def producer(tensor: keras.KerasTensor) -> keras.Operation:
    """The layer or operation that a symbolic tensor comes from.

    Example:
        >>> inputs = keras.Input((8,))
        >>> producer(keras.layers.Dense(2, name="scores")(inputs)).name
        'scores'
    """
    return producing_node(tensor).operation


def run_through(graph: keras.Function, inputs: Any, visit: Callable[[keras.Operation], Callable[..., Any]]) -> Any:
    """Runs a graph with other functions in place of its operations.

    Args:
        graph: See `functional_graph`.
        inputs: In the structure of the graph's inputs; arrays, tensors or symbolic tensors.
        visit: Called with each operation, in order; what it returns is called with the operation's arguments.

    Returns:
        What the functions give, in the structure of the graph's outputs.
    """
    return graph._run_through_graph(inputs, operation_fn=visit)


def flat_inputs(model: keras.Model, inputs: Any) -> list[Any]:
    """What a functional model is called with, as a flat list.

    Args:
        model: A functional model.
        inputs: Tensors in any structure that the model takes: one, a list, or a dict by the names of its inputs.

    Returns:
        The tensors in the order of `model.inputs`, of the ranks that these have.
    """
    return model._standardize_inputs(inputs)


def has_training_argument(operation: keras.Operation) -> bool:
    """Whether a layer's `call` takes `training`; False for an operation that is no layer."""
    return getattr(operation, "_call_has_training_arg", False)


def all_layers(model: keras.Model) -> list[keras.Layer]:
    """All layers of a model at any depth, also those inside of models and of layers, but not the model itself."""
    return list(model._flatten_layers(include_self=False))


def gives_probabilities(model: keras.Model) -> bool:
    """Whether the layer of a functional model's first output is a softmax or sigmoid, or ends in one.

    Example:
        >>> inputs = keras.Input((8, 8, 3))
        >>> gives_probabilities(keras.Model(inputs, keras.layers.Conv2D(5, 1, activation="softmax")(inputs)))
        True
    """
    layer = producer(model.outputs[0])
    activation = getattr(getattr(layer, "activation", None), "__name__", "")
    return isinstance(layer, keras.layers.Softmax) or activation in ("softmax", "sigmoid")


def hide_tensorflow() -> None:
    """Makes Keras believe that TensorFlow is not installed, for the rest of the process.

    Keras 3.15 asks whether TensorFlow is there, by importing it, whenever it saves a model or sets the seeds.
    """
    module_utils.tensorflow._available = False
