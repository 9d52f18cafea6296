"""Each private name of Keras that the package rests on, by its name; a new Keras that changes one fails here first."""

import ast

import keras
import numpy as np
import pytest
from helpers import REPOSITORY
from keras import layers, ops
from keras.src.utils import module_utils

from semseg.backend.keras_graph import (
    all_layers,
    flat_inputs,
    functional_graph,
    gives_probabilities,
    has_training_argument,
    hide_tensorflow,
    nodes_in_order,
    producer,
    producing_node,
    run_through,
)
from semseg.backend.kernels import ADAMW
from semseg.backend.optimizer import PartialAdamW

PRIVATE = {  # of graphs, layers and optimisers; `keras.src` beside
    "_functional", "_nodes_by_depth", "_run_through_graph", "_keras_history", "_inbound_nodes", "_inputs_struct",
    "_outputs_struct", "_standardize_inputs", "_call_has_training_arg", "_flatten_layers", "_layers", "_operations",
    "_available", "_momentums", "_velocities", "_get_variable_index", "_use_weight_decay", "_apply_weight_decay",
    "_parallel_update_step",
}  # fmt: skip


def branching():
    """Two inputs; one layer used twice, a model inside, and a merge."""
    first, second = keras.Input((8,), name="first"), keras.Input((8,), name="second")
    shared = layers.Dense(4, name="shared")
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="inside")], name="inner")
    y = layers.Add(name="sum")([inner(shared(first)), shared(second)])
    return keras.Model([first, second], layers.Dropout(0.5, name="last")(y))


def an_operation():
    """One that is no layer."""
    return producer(keras.Input((8,)) + 1)


class Derived(keras.Model):
    pass


def test_a_functional_model_is_its_own_graph_and_a_sequential_one_has_one():
    model = branching()
    assert functional_graph(model) is model is functional_graph(model, plain=True)
    sequential = model.get_layer("inner")
    graph = functional_graph(sequential)  # Sequential._functional
    assert graph is not sequential
    assert [tensor.shape for tensor in (*graph.inputs, *graph.outputs)] == [(None, 4), (None, 4)]
    assert functional_graph(sequential, plain=True) is graph


def test_what_has_no_graph():
    for operation in (layers.Dense(2), keras.Sequential([layers.Dense(2)]), Derived(), an_operation()):
        assert functional_graph(operation) is None, operation


def test_a_class_of_ones_own_is_a_graph_but_no_plain_one():
    inputs = keras.Input((8,))
    model = Derived(inputs, layers.Dense(2)(inputs))
    assert functional_graph(model) is model
    assert functional_graph(model, plain=True) is None


def test_nodes_come_in_the_order_of_the_data():  # Function._nodes_by_depth
    nodes = nodes_in_order(branching())
    names = [node.operation.name for node in nodes]
    assert sorted(names[:2]) == ["first", "second"] and [node.is_input for node in nodes] == [True] * 2 + [False] * 5
    assert names.count("shared") == 2 and names[-2:] == ["sum", "last"]
    made = set()
    for node in nodes:
        assert all(id(tensor) in made for tensor in node.input_tensors)
        made.update(id(tensor) for tensor in node.outputs)


def test_a_node_knows_how_its_operation_was_called():  # Node.arguments
    model = branching()
    node = nodes_in_order(model)[-1]
    assert node.arguments.args[0] is node.input_tensors[0] and set(node.arguments.kwargs) <= {"training"}
    arguments, _ = node.arguments.fill_in({id(node.input_tensors[0]): "a value"})
    assert arguments == ("a value",)


def test_where_a_tensor_comes_from():  # KerasTensor._keras_history, Operation._inbound_nodes
    model = branching()
    assert producer(model.outputs[0]) is model.get_layer("last")
    total = producing_node(producing_node(model.outputs[0]).input_tensors[0])
    assert [producer(tensor).name for tensor in total.input_tensors] == ["inner", "shared"]
    uses = [producing_node(tensor) for tensor in (producing_node(total.input_tensors[0]).input_tensors[0],
                                                  total.input_tensors[1])]  # fmt: skip
    assert [producer(node.input_tensors[0]).name for node in uses] == ["first", "second"]


def test_a_graph_runs_with_other_functions():  # Function._run_through_graph
    model, visited = branching(), []

    def visit(operation):
        visited.append(operation.name)
        return lambda inputs, **_: sum(inputs) if isinstance(inputs, list) else 2 * inputs

    assert run_through(model, [1, 10], visit) == 2 * (2 * 2 * 1 + 2 * 10)
    assert visited[-2:] == ["sum", "last"] and sorted(visited[:-2]) == ["inner", "shared", "shared"]


def test_inputs_in_any_structure_become_a_flat_list():  # Functional._standardize_inputs
    inputs = {"b": keras.Input((2,), name="b"), "a": keras.Input((3,), name="a")}
    model = keras.Model(inputs, layers.Concatenate()([inputs["a"], inputs["b"]]))
    photos = {name: ops.ones((1, *tensor.shape[1:])) for name, tensor in inputs.items()}
    shapes = [tuple(x.shape) for x in flat_inputs(model, photos)]
    assert shapes == [(1, *x.shape[1:]) for x in model.inputs]
    single = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    (x,) = flat_inputs(functional_graph(single), ops.ones((4, 2, 1)))  # of another rank than it expects
    assert tuple(x.shape) == (4, 2)


def test_who_takes_training():  # Layer._call_has_training_arg
    assert has_training_argument(layers.Dropout(0.5)) and has_training_argument(layers.BatchNormalization())
    assert not has_training_argument(layers.ReLU()) and not has_training_argument(an_operation())


def test_layers_at_any_depth():  # Layer._flatten_layers
    model = branching()
    assert [layer.name for layer in all_layers(model)].count("inside") == 1
    assert {"shared", "inner", "sum", "last"} <= {layer.name for layer in all_layers(model)}
    assert model not in all_layers(model)
    wrapped = keras.Sequential([keras.Input((3, 8)), layers.TimeDistributed(layers.Dense(2, name="wrapped"))])
    assert "wrapped" in [layer.name for layer in all_layers(wrapped)]


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (layers.Conv2D(3, 1), False),
        (layers.Conv2D(3, 1, activation="softmax"), True),
        (layers.Activation("sigmoid"), True),
        (layers.Softmax(), True),
        (layers.ReLU(), False),
    ],
    ids=str,
)
def test_whether_a_model_ends_in_probabilities(last, expected):
    inputs = keras.Input((8, 8, 3))
    assert gives_probabilities(keras.Model(inputs, last(inputs))) is expected


class Opposite(PartialAdamW):
    """Takes matrices, and steps up the gradient."""

    def takes(self, variable):
        return len(variable.shape) == 2

    def own_steps(self, pairs, learning_rate):
        for gradient, variable in pairs:
            gathered = self.momentum_of(variable)
            self.assign(gathered, gathered + gradient)
            self.assign(variable, variable + gathered)


def test_an_optimiser_takes_a_part_of_the_weights():
    """Optimizer._momentums, _get_variable_index, _use_weight_decay, _apply_weight_decay, _parallel_update_step."""

    def descend(kind):
        variables = [keras.Variable(np.ones(shape, "float32")) for shape in ((2, 3), (4,))]
        optimizer = kind(0.1, weight_decay=0.5)
        optimizer.build(variables)
        for _ in range(2):
            optimizer.apply([ops.ones(variable.shape) for variable in variables])
        return [ops.convert_to_numpy(variable.value) for variable in variables]

    (own, rest), (_, expected) = descend(Opposite), descend(keras.optimizers.AdamW)
    np.testing.assert_allclose(rest, expected, atol=1e-5)
    np.testing.assert_allclose(own, 0.95 * (0.95 * np.ones((2, 3)) + 1) + 2, rtol=1e-6)


def test_the_fused_optimiser_is_keras_own():  # keras.src.backend.torch.optimizers.torch_adamw, Optimizer._velocities
    assert issubclass(ADAMW, keras.optimizers.AdamW)
    optimizer = ADAMW(0.1)
    optimizer.build([keras.Variable(np.ones(3, "float32"))])
    assert len(optimizer._momentums) == len(optimizer._velocities) == 1


def test_keras_can_be_told_that_tensorflow_is_missing(monkeypatch):
    # keras.src.utils.module_utils.tensorflow._available
    monkeypatch.setattr(module_utils.tensorflow, "_available", True)
    hide_tensorflow()
    assert not module_utils.tensorflow.available  # what Keras asks before it saves: see test_devices


def private_names(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("keras.src"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("keras.src"):
            yield node.module
        elif isinstance(node, ast.Attribute) and node.attr in PRIVATE:
            yield node.attr
        elif isinstance(node, ast.FunctionDef) and node.name in PRIVATE:
            yield node.name
        elif isinstance(node, ast.Constant) and node.value in PRIVATE:  # getattr(layer, "_functional")
            yield node.value


@pytest.mark.plain
def test_one_room_knows_the_private_names_of_keras():
    package = REPOSITORY / "semseg"
    found = {
        (str(path.relative_to(package)), name)
        for path in package.rglob("*.py")
        if "backend" not in path.relative_to(package).parts
        for name in private_names(path)
    }
    assert not found
    used = set(private_names(package / "backend/keras_graph.py"))
    assert {"_nodes_by_depth", "keras.src.models.functional"} <= used, "the search finds nothing"
    assert used - PRIVATE == {f"keras.src.{name}" for name in ("models.functional", "ops.node", "utils")}
