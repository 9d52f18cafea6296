"""All that knows torch, TensorFlow, JAX or Keras' private parts: kernels, graphs, devices."""

from collections.abc import Callable

import numpy as np

PredictBatch = Callable[[np.ndarray], np.ndarray]  # photos uint8 (N, h, w, C) to logits float32 (N, h, w, K)
