"""The colours of matplotlib's colour maps, which programs that show numbers leave in saved masks.

`imsave` and its like stretch a map over the numbers of each file, so that one number has another colour in the next.
"""

import numpy as np

# matplotlib 3.10, _cm_listed.py and _cm.py: RGB as six hexadecimal digits each. A continuous map is given by 18 of its
# 256 colours, the first and the last among them, from which it differs by few levels in between.
_CONTINUOUS = {
    "viridis": (
        "440154471669472a79433c843c4d8a355d8c2e6c8e287a8e23898d1e978a20a5852eb27c45bf6f64cb5d88d547afdc2ed7e219fde724"
    ),
    "plasma": (
        "0c07862f049549029f6100a67801a88e0ca4a21c9ab42d8dc33e7fd14f71de6064e97257f2854af9993dfdaf31fdc626f8df24eff821"
    ),
    "inferno": (
        "0000030906211d0c45370961500d6c68166e801f6b982765af315bc53d4dd94d3de8612bf37918fa9306fbb014f8cd37f1e968fcfea4"
    ),
    "magma": (
        "00000309071f1a10413010654a107961187f792281912a80a9327cc23a75d9466aec585ff7715bfc8e63feaa74fec689fde1a3fbfcbf"
    ),
    "cividis": (
        "00224d002c6716366f2e416c3f4b6b4e566c5b606e686b71757575838078918c77a09775afa370beb06acebc62dfca56efd846fde737"
    ),
    "turbo": (
        "30123b3f3d9c4666dd448cfd2fb1f319d3cf22eba951f9798bfe4bb6f735dae236f4c43afea12ff8741ce84b0cce2d04a915017a0402"
    ),
    "jet": (
        "00007f0000c30000ff0034ff0070ff00acff02e8f432ffc363ff9393ff63c3ff32f4f802ffc000ff8900ff5100ff1a00c300007f0000"
    ),
    "hot": (
        "0a0000310000590000800000a80000cf0000f60000ff1f00ff4600ff6e00ff9500ffbc00ffe400ffff12ffff4dffff88ffffc3ffffff"
    ),
    "rainbow": (
        "7f00ff612efd435cfa2586f507abed16cbe434e4d852f5cb70fdbc8efdabacf599cae486e8cb71ffab5cff8645ff5c2eff2e17ff0000"
    ),
    "coolwarm": (
        "3a4cc04c66d65f7ee77395f487aafc9cbcfeb0cbfbc3d5f2d5dbe5e4d8d1efcdbbf6bda4f6aa8cf29375e9795edb5c4ac93b37b30326"
    ),
}
_QUALITATIVE = {
    "tab10": "1f77b4ff7f0e2ca02cd627289467bd8c564be377c27f7f7fbcbd2217becf",
    "tab20": (
        "1f77b4aec7e8ff7f0effbb782ca02c98df8ad62728ff98969467bdc5b0d58c564bc49c94e377c2f7b6d27f7f7fc7c7c7"
        "bcbd22dbdb8d17becf9edae5"
    ),
    "Set1": "e41a1c377eb84daf4a984ea3ff7f00ffff33a65628f781bf999999",
    "Set2": "66c2a5fc8d628da0cbe78ac3a6d854ffd92fe5c494b3b3b3",
    "Set3": "8dd3c7ffffb3bebadafb807280b1d3fdb462b3de69fccde5d9d9d9bc80bdccebc5ffed6f",
    "Paired": "a6cee31f78b4b2df8a33a02cfb9a99e31a1cfdbf6fff7f00cab2d66a3d9affff99b15928",
    "Accent": "7fc97fbeaed4fdc086ffff99386cb0f0027fbf5b16666666",
    "Dark2": "1b9e77d95f027570b3e7298a66a61ee6ab02a6761d666666",
    "Pastel1": "fbb4aeb3cde3ccebc5decbe4fed9a6ffffcce5d8bdfddaecf2f2f2",
}
_MAX_DISTANCE = 14.0  # levels from the map: what lies between the colours that are given here differs by up to 12
_END_DISTANCE = 2.0  # levels: programs round the ends differently


def find_colormap(colors: np.ndarray) -> tuple[str, np.ndarray, float] | None:
    """The map whose ends are among these colours and on which all of them lie.

    Args:
        colors: RGB, 0 to 255, `(M, 3)`.

    Returns:
        Its name; the place of each colour on it, integers `(M,)` from 0 to 255; and by how much a place may be wrong.
        None where there is no such map.

    Example:
        >>> find_colormap(np.array([(68, 1, 84), (33, 145, 140), (253, 231, 37)]))[0]
        'viridis'
    """
    for name, text in (_CONTINUOUS | _QUALITATIVE).items():
        stops = np.frombuffer(bytes.fromhex(text), np.uint8).reshape(-1, 3).astype(float)
        continuous = name in _CONTINUOUS
        places, distances = _places_between(colors, stops) if continuous else _nearest_stops(colors, stops)
        ends = {0.0, 1.0} <= set(places[distances <= _END_DISTANCE].tolist())
        if ends and distances.max() <= (_MAX_DISTANCE if continuous else _END_DISTANCE):
            return name, (255 * places).round().astype(int), 6.0 if continuous else 255 / len(stops) / 2 + 2
    return None


def _nearest_stops(colors: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places, 0 to 1, and distances in levels of colours from the nearest of the given ones."""
    distances = np.linalg.norm(colors[:, None] - stops, axis=2)
    return distances.argmin(axis=1) / (len(stops) - 1), distances.min(axis=1)


def _places_between(colors: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same for the line through the given colours."""
    steps = np.diff(stops, axis=0)
    along = ((colors[:, None] - stops[:-1]) * steps).sum(axis=2) / (steps**2).sum(axis=1)  # (M, segments)
    along = along.clip(0, 1)
    distances = np.linalg.norm(colors[:, None] - stops[:-1] - along[..., None] * steps, axis=2)
    segment = distances.argmin(axis=1)
    rows = np.arange(len(colors))
    nearest, far = _nearest_stops(colors, stops)
    places = (segment + along[rows, segment]) / len(steps)
    at_stop = far <= _END_DISTANCE
    return np.where(at_stop, nearest, places), np.where(at_stop, far, distances[rows, segment])
