"""The drawing of a network under the name that the mission gives it; it is drawn in `architectures.drawing`."""

from semseg.architectures.drawing import get_model_arch

__all__ = ["get_model_arch"]
