"""Image files and masks under the names that the mission gives them; the work is done in `images` and `labels`."""

from semseg.images.reading import load_images, read_image
from semseg.labels.quantising import bin_image, get_segmentation_arr, give_color_to_seg_img

__all__ = ["bin_image", "get_segmentation_arr", "give_color_to_seg_img", "load_images", "read_image"]
