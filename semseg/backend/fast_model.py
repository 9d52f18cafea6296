"""A Keras model that computes what its layers would, faster: `FastModel(inputs, outputs)` in place of `keras.Model`."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops, tree

from semseg.backend.keras_graph import (
    Node,
    flat_inputs,
    functional_graph,
    has_training_argument,
    nodes_in_order,
    producing_node,
)
from semseg.backend.kernels import apply_updates, compiled, device, divide, kernel_of, swap, unite
from semseg.backend.kernels.base import Kernel, Tensor, Update
from semseg.errors import SemsegError

PRECISIONS = ("float32", "bfloat16", "float16")
TO_CHANNELS_FIRST, TO_CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)


class FastModel(keras.Model):
    """A functional model whose graph runs on the fastest kernels of the backend.

    It shares its layers and their weights with every other model of them. These stay plain Keras, and so does what is
    saved. Layers without a kernel are called as they are. Numbers agree with Keras' own to rounding. Masks
    are not passed on.

    Args:
        inputs: Symbolic tensor, or a list or dict of them, as for `keras.Model`.
        outputs: Symbolic tensor, or a list or dict of them, as for `keras.Model`.
        precision: `"float32"`; or `"bfloat16"` or `"float16"` for all that is computed before the last weights of each
            output. Weights, moving averages and outputs stay float32.
        remat: While training, keep only what enters or leaves a run of layers of one size, and compute the rest again
            for the gradients: less memory, more time.
        options: Of `keras.Model`, such as `name`.

    Raises:
        SemsegError: The precision is none of these.

    Example:
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.ReLU()])
        >>> FastModel(model.inputs[0], model.outputs[0])(keras.ops.ones((1, 8, 8, 3))).shape[1:] == (6, 6, 4)
        True
    """

    def __init__(self, inputs: Any, outputs: Any, *, precision: str = "float32", remat: bool = False, **options: Any):
        if precision not in PRECISIONS:
            raise SemsegError(f"`precision`: got {precision!r}; expected one of {', '.join(PRECISIONS)}")
        super().__init__(inputs, outputs, **options)
        self.dtype_policy = "float32"  # the layers have their own
        self._scales_loss = precision == "float16"
        self._plan = _Plan(self, None if precision == "float32" else precision, remat)
        self.parts = 1  # of a batch, each on a device of its own; only TensorFlow needs to be told
        self._compiled: Callable[..., Any] = self._plan
        self._compiled_shapes: list[tuple] | None = None

    def call(self, inputs: Any, training: bool | None = None, mask: None = None) -> Any:
        """Returns the outputs, as the functional model would."""
        tensors = self._tensors(inputs)
        if self.parts > 1:
            tensors = [divide(x, self.parts) for x in tensors]
        fitting = training and self._compiled_shapes and [tuple(x.shape) for x in tensors] == self._compiled_shapes
        results, updates = (self._compiled if fitting else self._plan)(*tensors, training=training)
        apply_updates(updates)
        results = [unite(x) if isinstance(x, tuple) else x for x in results]
        return tree.pack_sequence_as(self.output, results)

    def compile(
        self, optimizer: Any = "rmsprop", *arguments: Any, auto_scale_loss: bool = True, **options: Any
    ) -> None:
        """See `keras.Model.compile`; a loss in float16 is scaled, as Keras does for its own `mixed_float16`."""
        if self._scales_loss and auto_scale_loss:
            optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.get(optimizer))
        super().compile(optimizer, *arguments, auto_scale_loss=auto_scale_loss, **options)

    def save(self, *arguments: Any, **options: Any) -> None:
        """Saves the plain Keras model of these layers: see `keras.Model.save`."""
        keras.Model(self.input, self.output, name=self.name).save(*arguments, **options)

    def compile_graph(self, inputs: Any) -> None:
        """Compiles the graph for training on batches of one shape; others go on as they are.

        It has an effect on PyTorch. Elsewhere Keras compiles the whole step (`jit_compile` of `keras.Model.compile`),
        and this only tries whether XLA can.

        Args:
            inputs: A batch of that shape, of any values.

        Raises:
            Exception: What the compiler raised; the model can be used as before.
        """
        examples = self._tensors(inputs)
        self._compiled = compiled(self._plan.__call__, examples)
        self._compiled_shapes = [tuple(x.shape) for x in examples]

    @property
    def called_layers(self) -> list[keras.Layer]:
        """The layers without a kernel, and those inside them."""
        layers = [operation for operation in self._plan.called if isinstance(operation, keras.Layer)]
        return [inner for layer in layers for inner in layer._flatten_layers()]

    def _tensors(self, inputs: Any) -> list[Tensor]:
        """The inputs in the model's order, on the device; moved there before they are cast: photos as bytes."""
        return flat_inputs(self, tree.map_structure(ops.convert_to_tensor, inputs))


def fastest(model: keras.Model) -> keras.Model:
    """A model that computes the same with the fastest kernels, where there can be one.

    Args:
        model: Any Keras model.

    Returns:
        A `FastModel` of the same layers where `model` is a plain graph with one input and one output, else `model`.
    """
    graph = functional_graph(model, plain=True)
    if graph is None or len(graph.inputs) != 1 or len(graph.outputs) != 1:
        return model
    return FastModel(graph.inputs[0], graph.outputs[0])


@dataclass
class _Step:
    """Takes the values of some slots and puts its results into others; those of `frees` are not needed after it."""

    run: Callable[..., tuple[Sequence[Tensor], Sequence[Update]]]
    sources: tuple[int, ...]
    targets: tuple[int, ...]
    resizes: bool = False
    repeatable: bool = True  # gives the same when it is computed again
    frees: tuple[int, ...] = ()
    divided: Callable[..., tuple[Sequence[Any], Sequence[Update]]] | None = None  # takes and gives tensors in parts


class _Plan:
    """The graph of a functional model as a list of steps.

    A slot holds the value of one of the graph's tensors, in one order of its axes.
    """

    def __init__(self, graph: keras.Function, low_precision: str | None, remat: bool, inner: bool = False):
        self._low_precision, self._remat = low_precision, remat
        self._full = _input_scalings(graph) | (set() if inner else _float32_operations(graph))
        self._slots: dict[tuple[int, bool], int] = {}
        self._swapped: dict[int, bool] = {}  # the order of axes in which a tensor is made
        self._overwritable: set[int] = set()
        self.called: list[keras.Operation] = []  # those without a kernel
        self._steps: list[_Step] = []
        nodes = nodes_in_order(graph)
        self._uses = Counter(id(x) for node in nodes for x in node.input_tensors)
        self._uses.update(id(x) for x in graph.outputs)
        self._inputs = [self._made(x, swapped=False) for x in graph.inputs]
        for node in nodes:
            if not node.is_input:
                self._add(node)
        self._outputs = [self._slot(x, swapped=False) for x in graph.outputs]
        self._note_last_uses()
        self._segments = self._divided() if remat else [self._steps]

    def __call__(self, *inputs: Tensor, training: bool | None) -> tuple[list[Tensor], list[Update]]:
        """Returns the outputs, and what is to be changed."""
        values, updates = dict(zip(self._inputs, inputs, strict=True)), []
        for steps in self._segments:
            if training and self._remat and all(step.repeatable for step in steps):
                updates += self._run_twice(steps, values)
            else:
                updates += _run(steps, values, training)
        return [values[slot] for slot in self._outputs], updates

    def _add(self, node: Node) -> None:
        """Adds the steps of one application of an operation."""
        operation = node.operation
        kernel = self._kernel(node)
        if kernel is None:
            self._add_call(node)
            return
        swapped = kernel.channels_first
        if swapped is None:  # either order will do: the one that the inputs have, so that no view is needed
            swapped = all(self._swapped[id(x)] for x in node.input_tensors)
        run, (first, *_) = kernel.run, node.input_tensors
        # An input may be overwritten if no gradient needs its values and nothing else reads it.
        alone = id(first) in self._overwritable and self._uses[id(first)] == 1
        if kernel.overwriting and alone and not self._remat:  # what enters a run of steps is needed twice
            run = kernel.overwriting
        sources = tuple(self._slot(x, swapped) for x in node.input_tensors)
        target = self._made(node.outputs[0], swapped)
        if kernel.fresh:
            self._overwritable.add(id(node.outputs[0]))
        default = node.arguments.kwargs.get("training")
        run, divided = _with_one_result(run, default), _with_one_result(kernel.divided, default)
        self._steps.append(_Step(run, sources, (target,), _resizes(operation), divided=divided))

    def _kernel(self, node: Node) -> Kernel | None:
        """The backend's kernel, if the operation is applied as usual: to tensors of one rank and nothing else."""
        ranks = {len(x.shape) for x in node.input_tensors}
        if len(ranks) != 1 or not _without_loss(node.operation) or not _takes_tensors_alone(node):
            return None
        kernel = kernel_of(node.operation, self._dtype(node.operation))
        return None if kernel and kernel.channels_first and ranks != {4} else kernel

    def _dtype(self, layer: keras.Layer) -> str:
        own = layer.compute_dtype
        return self._low_precision if self._low_precision and own == "float32" and layer not in self._full else own

    def _add_call(self, node: Node) -> None:
        """Adds a step that calls the operation itself, or the plan of a graph inside the graph."""
        operation, symbols = node.operation, node.input_tensors
        graph = functional_graph(operation, plain=True)
        if graph is not None and len(graph.inputs) == len(symbols):
            plan = _Plan(graph, self._low_precision, self._remat, inner=operation not in self._full)
            self.called += plan.called
            run: Callable = plan
            divided: Callable | None = plan
        else:
            self.called.append(operation)
            run, divided = self._caller(node), None
        sources = tuple(self._slot(x, swapped=False) for x in symbols)
        targets = tuple(self._made(x, swapped=False) for x in node.outputs)
        layer = isinstance(operation, keras.Layer)
        repeatable = not layer or (_without_loss(operation) and not operation.non_trainable_variables)
        self._steps.append(_Step(run, sources, targets, _resizes(operation), repeatable, divided=divided))

    def _caller(self, node: Node) -> Callable[..., tuple[list[Tensor], tuple]]:
        operation, symbols = node.operation, node.input_tensors
        low = isinstance(operation, keras.Layer) and self._dtype(operation) != operation.compute_dtype
        policy = keras.DTypePolicy(f"mixed_{self._low_precision}") if low else None

        def run(*tensors: Tensor, training: bool | None) -> tuple[list[Tensor], tuple]:
            args, kwargs = node.arguments.fill_in({id(x): value for x, value in zip(symbols, tensors, strict=True)})
            if training is not None and has_training_argument(operation):
                kwargs["training"] = training  # as Keras does, whatever the graph says
            if policy is None:
                return tree.flatten(operation(*args, **kwargs)), ()
            own, operation.dtype_policy = operation.dtype_policy, policy
            try:
                return tree.flatten(operation(*args, **kwargs)), ()
            finally:
                operation.dtype_policy = own

        return run

    def _made(self, symbol: keras.KerasTensor, swapped: bool) -> int:
        """The slot that a tensor is made in."""
        self._swapped[id(symbol)] = swapped
        return self._slots.setdefault((id(symbol), swapped), len(self._slots))

    def _slot(self, symbol: keras.KerasTensor, swapped: bool) -> int:
        """The slot that holds a tensor in one order of axes, if need be a view of how it was made."""
        key = (id(symbol), swapped)
        if key not in self._slots:
            axes = TO_CHANNELS_FIRST if swapped else TO_CHANNELS_LAST
            source, self._slots[key] = self._slots[id(symbol), not swapped], len(self._slots)
            self._steps.append(_Step(lambda x, training: ([swap(x, axes)], ()), (source,), (self._slots[key],)))
        return self._slots[key]

    def _note_last_uses(self) -> None:
        needed = set(self._outputs)
        for step in reversed(self._steps):
            step.frees = tuple({*step.sources, *step.targets} - needed)
            needed.update(step.sources)

    def _divided(self) -> list[list[_Step]]:
        """Runs of steps of one size that may be repeated; a step that may not is a run of its own."""
        runs: list[list[_Step]] = [[]]
        for step in self._steps:
            if step.resizes or not step.repeatable or (runs[-1] and not runs[-1][-1].repeatable):
                runs.append([])
            runs[-1].append(step)
        return [run for run in runs if run]

    def _run_twice(self, steps: list[_Step], values: dict[int, Tensor]) -> list[Update]:
        """Runs steps without keeping what is inside for the gradients, which run them again."""
        sources, targets, freed = _boundary(steps)
        changed: list[tuple[keras.Variable, float]] = []

        def segment(*tensors: Tensor) -> tuple[Tensor, ...]:
            inside = dict(zip(sources, tensors, strict=True))
            updates = _run(steps, inside, True)
            changed[:] = [(variable, share) for variable, _, share in updates]
            # What is to become of variables leaves the segment as a result: a side effect would happen twice.
            return (*(inside[slot] for slot in targets), *(value for _, value, _ in updates))

        results = keras.remat(segment)(*(values[slot] for slot in sources))
        for slot in freed:
            values.pop(slot, None)
        values.update(zip(targets, results, strict=False))
        news = results[len(targets) :]
        return [(variable, value, share) for (variable, share), value in zip(changed, news, strict=True)]


def _run(steps: list[_Step], values: dict[int, Tensor], training: bool | None) -> list[Update]:
    updates: list[Update] = []
    for step in steps:
        taken = [values[slot] for slot in step.sources]
        results, new = _results(step, taken, training)
        values.update(zip(step.targets, results, strict=True))
        updates += new
        for slot in step.frees:
            values.pop(slot, None)
        del taken, results
    return updates


def _results(step: _Step, taken: list[Any], training: bool | None) -> tuple[Sequence[Any], Sequence[Update]]:
    """What a step makes of tensors, or of tensors in parts on several devices."""
    if not isinstance(taken[0], tuple):
        return step.run(*taken, training=training)
    if step.divided:
        return step.divided(*taken, training=training)
    results: list[Sequence[Any]] = []
    updates: list[Update] = []
    for number, tensors in enumerate(zip(*taken, strict=True)):
        with device(number):
            part, new = step.run(*tensors, training=training)
        results.append(part)
        updates += new
    return list(zip(*results, strict=True)), updates


def _boundary(steps: list[_Step]) -> tuple[list[int], list[int], set[int]]:
    """The slots that steps take from before them, those that they leave behind them, and those that they free."""
    sources: dict[int, None] = {}  # dictionaries as sets that keep their order
    made: dict[int, None] = {}
    freed: set[int] = set()
    for step in steps:
        sources.update(dict.fromkeys(slot for slot in step.sources if slot not in made))
        made.update(dict.fromkeys(step.targets))
        freed.update(step.frees)
    return list(sources), [slot for slot in made if slot not in freed], freed


def _takes_tensors_alone(node: Node) -> bool:
    """Whether an operation is called with its tensors, as the first argument, `training`, and nothing else."""
    options = {name: value for name, value in node.arguments.kwargs.items() if name != "training"}
    return all(value is None for value in (*node.arguments.args[1:], *options.values()))


def _with_one_result(run: Callable[..., tuple[Any, Sequence[Update]]] | None, default: bool | None) -> Any:
    if run is None:
        return None

    def run_step(*tensors: Tensor, training: bool | None) -> tuple[list[Tensor], Sequence[Update]]:
        result, updates = run(*tensors, training=default if training is None else training)
        return [result], updates

    return run_step


def _float32_operations(graph: keras.Function) -> set[keras.Operation]:
    """The last operations with weights before each output, and those after them."""
    found: set[keras.Operation] = set()
    waiting = list(graph.outputs)  # tensors; from each the way leads back to the nearest operation with weights
    while waiting:
        node = producing_node(waiting.pop())
        found.add(node.operation)
        if not getattr(node.operation, "weights", None):
            waiting += node.input_tensors
    return found


def _input_scalings(graph: keras.Function) -> set[keras.Operation]:
    """Normalisation by constants: it takes numbers of 16 bits, which low precision would round to 3 digits."""
    operations = (node.operation for node in nodes_in_order(graph))
    return {operation for operation in operations if isinstance(operation, keras.layers.Normalization)}


def _without_loss(operation: keras.Operation) -> bool:
    """Whether it is a layer that adds nothing to the model's loss when it is called."""
    return isinstance(operation, keras.Layer) and operation.activity_regularizer is None


def _resizes(operation: keras.Operation) -> bool:
    """Whether the operation changes height and width by more than its padding."""
    steps = getattr(operation, "strides", None) or getattr(operation, "size", None) or 1
    return max(tree.flatten(steps)) > 1
