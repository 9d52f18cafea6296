"""stub"""

import numpy as np


def repair_mask(mask, colors, ids, *, ignore_doubt=True):
    d = ((mask[:, :, None].astype(np.float32) - colors.astype(np.float32)) ** 2).sum(-1)
    n = d.argmin(-1)
    out = ids[n]
    out[d.min(-1) > 1600] = 255
    return out
