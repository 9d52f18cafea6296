"""Which network is better: two tests on the photos and seeds of finished runs, and a verdict.

`RULE` says in words when a difference counts as real; `compare_pair` says it in formulas.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy import stats

from semseg.comparison.networks import Network

LEVEL = 0.05
MIN_PHOTOS = 6  # photos: the signed-rank test's smallest p is 2 / 2 ** photos
RULE = """Networks are compared by their mean IoU per photo, averaged over the seeds. A difference counts as real only
if three things hold. (1) The photos agree: a two-sided Wilcoxon signed-rank test over them (differences of zero are
ranked and split between both sides). (2) It is larger than new photos and new trainings would give by chance: a
t-test whose variance is that between the photos' differences plus that between the seeds of each network
(Satterthwaite's degrees of freedom). The first test alone knows these trainings only, and would find differences
between equal networks whose seeds differ. (3) Mean IoU over the whole split points the same way. Both p are corrected
for all pairs of networks by Holm's method and must be below 0.05. With one seed the spread between trainings is
unknown, and nothing counts as real. Photos are taken as independent; frames of one video are not, and p is then too
small."""


@dataclass(frozen=True)
class Difference:
    """What two networks' runs say about them; see `RULE`.

    Attributes:
        network: The one of which `verdict` speaks.
        baseline: The one that it is compared with.
        difference: Network minus baseline, mean IoU per photo.
        low: Lower end of its 95 % interval over new photos and, with several seeds each, new trainings; at least -1.
        high: Its upper end.
        split_difference: The same in mean IoU over the whole split.
        photos: How many photos were compared.
        ahead: On how many of them the network is ahead.
        p_photos: Of the test over photos.
        p_trainings: Of the test over photos and seeds; NaN with a single seed.
        verdict: `"better"`, `"worse"` or `"cannot be told apart"`.
        reason: Why.
    """

    network: str
    baseline: str
    difference: float
    low: float
    high: float
    split_difference: float
    photos: int
    ahead: int
    p_photos: float
    p_trainings: float
    verdict: str = ""
    reason: str = ""

    @property
    def text(self) -> str:
        """One sentence for people."""
        trainings = "" if math.isfinite(self.p_trainings) else " over photos alone"
        return (
            f"{self.network} against {self.baseline}: {self.verdict}. {self.difference:+.4f} mean IoU per photo (95 %"
            f"{trainings}: {self.low:+.4f} to {self.high:+.4f}), ahead on {self.ahead} of {self.photos} photos; "
            f"{self.reason}."
        )


def compare_networks(networks: Sequence[Network]) -> list[Difference]:
    """Compares all pairs, those with the first network, the baseline, first; see `RULE`."""
    found = [compare_pair(network, baseline) for baseline, network in combinations(networks, 2)]
    photos, trainings = holm([pair.p_photos for pair in found]), holm([pair.p_trainings for pair in found])
    corrected = zip(found, photos, trainings, strict=True)
    return [with_verdict(replace(pair, p_photos=p, p_trainings=q)) for pair, p, q in corrected]


def compare_pair(network: Network, baseline: Network) -> Difference:
    """Both tests on one pair, not yet corrected for the number of pairs.

    With `d_i` the difference on photo i of the means over seeds, N photos, and `m_s` a seed's mean over photos, the
    difference D is the mean of `d_i`, its variance `var(d)/N + var(m of one)/S + var(m of the other)/S`.

    References: Wilcoxon 1945, https://doi.org/10.2307/3001968; photos and trainings as two sources of chance, after the
        studies of many readers and many cases in radiology: Obuchowski and Rockette 1995,
        https://doi.org/10.1080/03610919508813243; Satterthwaite 1946, https://doi.org/10.2307/3002019.
    """
    scores = [network.per_photo(), baseline.per_photo()]
    counted = np.isfinite(np.concatenate(scores)).all(axis=0)
    scores = [values[:, counted] for values in scores]
    d = np.round(scores[0].mean(axis=0) - scores[1].mean(axis=0), 9)  # or zeros and ties drown in rounding
    n = len(d)
    parts = [(d.var(ddof=1) / n, n - 1)] if n > 1 else []
    several = min(len(values) for values in scores) > 1
    if several:
        parts += [(values.mean(axis=1).var(ddof=1) / len(values), len(values) - 1) for values in scores]
    difference = float(d.mean()) if n else math.nan
    p, margin = _t_test(difference, parts)
    return Difference(
        network.name, baseline.name, difference, max(-1.0, difference - margin), min(1.0, difference + margin),
        float(np.mean(network.values("macro_iou")) - np.mean(baseline.values("macro_iou"))), n, int((d > 0).sum()),
        _wilcoxon(d), p if several else math.nan,
    )  # fmt: skip


def _t_test(difference: float, parts: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """The p of a difference, and half the width of its interval, from its (variance, degrees of freedom) by source."""
    variance = sum(part for part, _ in parts)
    if not parts or variance == 0:
        return (1.0 if difference == 0 or not parts else 0.0), (0.0 if parts else math.inf)
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    error = math.sqrt(variance)
    return float(2 * stats.t.sf(abs(difference) / error, freedom)), float(stats.t.isf(LEVEL / 2, freedom) * error)


def _wilcoxon(d: np.ndarray) -> float:
    return float(stats.wilcoxon(d, zero_method="zsplit").pvalue) if d.any() else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """The p corrected for the number of tests, those that are no number left out.

    Example:
        >>> [round(p, 2) for p in holm([0.04, 0.01, 0.03])]
        [0.06, 0.03, 0.06]

    Reference: Holm 1979, https://www.jstor.org/stable/4615733.
    """
    corrected, highest = list(p_values), 0.0
    order = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    for done, (p, i) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - done) * p))
        corrected[i] = highest
    return corrected


def with_verdict(pair: Difference) -> Difference:
    """The pair with its verdict and the reason for it."""
    agree = f"the photos agree ({_p(pair.p_photos)})"
    verdict = "cannot be told apart"
    if pair.photos < MIN_PHOTOS:
        reason = f"{pair.photos} photos are too few for a test, which needs {MIN_PHOTOS}"
    elif not pair.p_photos < LEVEL:
        reason = f"the photos do not agree ({_p(pair.p_photos)})"
    elif math.isnan(pair.p_trainings):
        reason = f"{agree}, but with one seed the spread between trainings is unknown: train more seeds"
    elif not pair.p_trainings < LEVEL:
        reason = f"{agree}, but other photos and seeds could turn it ({_p(pair.p_trainings)})"
    elif not pair.difference * pair.split_difference > 0:
        reason = f"{agree}, but mean IoU over the whole split does not ({pair.split_difference:+.4f})"
    else:
        verdict = "better" if pair.difference > 0 else "worse"
        reason = f"{agree}, and it is beyond the spread of photos and seeds ({_p(pair.p_trainings)})"
    return replace(pair, verdict=verdict, reason=reason)


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
