"""Evidence against a rate that may be looked at whenever one likes: a test martingale for counts."""

import math


def log_evidence(bad: int, n: int, tolerated: float) -> float:
    """The logarithm of how much likelier `bad` of `n` is under a higher rate than under the tolerated one.

    The likelihood ratio is mixed over all rates above the tolerated one, each as likely as the other (Robbins 1970,
    "Statistical methods related to the law of the iterated logarithm"; Johari, Pekelis, Walsh 2015, "Always valid
    inference", call it the mixture sequential probability ratio test):

        E = ∫ p^bad (1 − p)^(n − bad) dp / ((1 − t) t^bad (1 − t)^(n − bad)),   p from t to 1

    While the rate is at most `tolerated`, E is a nonnegative supermartingale with mean 1, so that by Ville's inequality
    it ever exceeds 1 / a with probability a at most, however often it is looked at.

    Args:
        bad: How often it was bad.
        n: How often it was looked at.
        tolerated: The rate that nothing is held against, above 0 and below 1.
    """
    if not n:
        return 0.0
    # Read when there is something to judge: it takes 0.2 s, for which a worker that comes back would be missed.
    from scipy.special import betainc, betaln

    a, b = bad + 1, n - bad + 1
    # 1 − I_t(a, b) = I_{1−t}(b, a), which keeps its digits where t is small.
    above = float(betainc(b, a, 1 - tolerated))
    if above <= 0.0:  # below what a float can hold: bad is rare beyond doubt
        return -math.inf
    mixed = float(betaln(a, b)) + math.log(above) - math.log1p(-tolerated)
    return mixed - bad * math.log(tolerated) - (n - bad) * math.log1p(-tolerated)
