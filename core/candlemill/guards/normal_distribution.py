"""The normal distribution to 20 digits, without libm: `decimal`'s correctly rounded exp, and power series."""

from decimal import ROUND_HALF_EVEN, Context, Decimal

CONTEXT = Context(prec=40, rounding=ROUND_HALF_EVEN)
PI = Decimal("3.141592653589793238462643383279502884197")
FAR = 12  # standard deviations beyond which the tail is below 10^-32
SMALL = Decimal("1e-36")  # terms of the series below this are ignored
CLOSE = Decimal("1e-20")


def cdf(x: Decimal) -> Decimal:
    """Return P(X <= x) = 1/2 + density * (x + x^3/3 + x^5/(3*5) + ...)."""
    if abs(x) > FAR:
        return Decimal(int(x > 0))
    c = CONTEXT
    square = c.multiply(x, x)
    term = total = x
    k = 1
    while abs(term) > SMALL:
        k += 2
        term = c.divide(c.multiply(term, square), Decimal(k))
        total = c.add(total, term)
    return c.add(Decimal("0.5"), c.multiply(_density(x), total))


def quantile(p: Decimal) -> Decimal:
    """Return the x with cdf(x) = p, for 0 < p < 1.

    Newton's method from 0 does not overshoot, because the cdf is concave above 0 and convex below.
    """
    c = CONTEXT
    x, step = Decimal(0), Decimal(1)
    while abs(step) > CLOSE:
        step = c.divide(c.subtract(p, cdf(x)), _density(x))
        x = c.add(x, step)
    return x


def _density(x: Decimal) -> Decimal:
    c = CONTEXT
    return c.divide(c.exp(c.divide(c.multiply(x, x), Decimal(-2))), c.sqrt(c.multiply(Decimal(2), PI)))
