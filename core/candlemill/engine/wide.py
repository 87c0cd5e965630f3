"""Exact products and quotients whose intermediate values exceed 64 bits.

An amount is money scaled by 10^8. Where even its products with prices must be exact to the last bit, it is a pair:
`whole` in 10^-8 and `rest` in 10^-16, `0 <= rest < 10^8`.

Quotients are estimated in floats and corrected: `a * b - guess * c` wraps around in 64 bits, but its true value is
small, so the result is exact. (The build compiles with -fwrapv, which makes wrapping around defined.)
"""

from typing import Final

from mypy_extensions import i64

SCALE: Final = 100_000_000
MILLION: Final = 1_000_000
LIMIT: Final = 1 << 60  # amounts are below it, so that the sum of two fits 64 bits
LIMIT_FLOAT: Final = 1.15e18
QUANTITY_LIMIT: Final = 1 << 62
QUANTITY_FLOAT: Final = 4.6e18
PRODUCT_LIMIT: Final = 2.5e33  # 2^111: the error of a guess is at most 2^-51 of the guess, times the divisor below 2^61


def size_of(number: i64) -> i64:
    """Return the absolute value: `abs` does not support i64."""
    return number if number >= 0 else -number


def fitting(number: int) -> i64:
    """Return `number` as an i64. Raises OverflowError if it is not below 2^62."""
    if not -QUANTITY_LIMIT < number < QUANTITY_LIMIT:
        raise OverflowError(
            f"a quantity or an amount of {number} (scaled) is above the limit of 2^62: use less capital"
        )
    return number


def below_limit(number: i64) -> i64:
    """Return `number` itself. Raises OverflowError if it is not below 2^60."""
    if number >= LIMIT or number <= -LIMIT:
        raise OverflowError(f"an amount of {number} (scaled) is above the limit of 2^60: use less capital")
    return number


def product(quantity: i64, price: i64) -> tuple[i64, i64]:
    """Return `quantity * price` as whole and rest, for `price >= 0`. Raises OverflowError if the whole is not below
    2^60.
    """
    if abs(float(quantity)) * float(price) >= LIMIT_FLOAT * 1e8:
        raise OverflowError(f"{quantity} units at {price} (both scaled) are worth more than the limit of 2^60")
    q: i64 = quantity // SCALE
    r: i64 = quantity - q * SCALE
    p: i64 = price // SCALE
    s: i64 = price - p * SCALE
    small: i64 = r * s
    carry: i64 = small // SCALE
    return q * price + r * p + carry, small - carry * SCALE


def value_down(quantity: i64, price: i64) -> i64:
    """Return `quantity * price // 10^8`."""
    return product(quantity, price)[0]


def value_up(quantity: i64, price: i64) -> i64:
    """Return `quantity * price / 10^8`, rounded up."""
    whole, rest = product(quantity, price)
    return whole + 1 if rest != 0 else whole


def ppm_up(amount: i64, ppm: i64) -> i64:
    """Return `amount * ppm / 10^6`, rounded up, for `amount >= 0`."""
    whole: i64 = amount // MILLION
    return whole * ppm - (-(amount - whole * MILLION) * ppm) // MILLION


def ratio_of(a: i64, b: i64, c: i64) -> i64:
    """Return `a * b // c` for `a, b >= 0` and `c > 0`. Raises OverflowError if it is not below 2^62."""
    size: float = float(a) * float(b)
    if size < PRODUCT_LIMIT and c < LIMIT and size < QUANTITY_FLOAT * float(c):
        guess: i64 = i64(size / float(c))
        return guess + (a * b - guess * c) // c
    return fitting(int(a) * int(b) // int(c))


def part_over_price(ppm: i64, whole: i64, rest: i64, price: i64) -> i64:
    """Return `ppm * amount * 10^8 // (10^6 * price)` for the amount of `whole` and `rest`.

    All are `>= 0`, and `price > 0`. Raises OverflowError if the result is not below 2^62.
    """
    if ppm != MILLION:
        high: i64 = whole // MILLION
        if float(high) * float(ppm) >= LIMIT_FLOAT:
            return fitting(int(ppm) * (int(whole) * SCALE + int(rest)) // (MILLION * int(price)))
        low: i64 = (whole - high * MILLION) * ppm
        carry: i64 = low // MILLION
        fine: i64 = ((low - carry * MILLION) * SCALE + rest * ppm) // MILLION
        over: i64 = fine // SCALE
        whole, rest = high * ppm + carry + over, fine - over * SCALE
    size: float = float(whole) * 1e8 + float(rest)
    if size < PRODUCT_LIMIT and price < LIMIT and size < QUANTITY_FLOAT * float(price):
        guess: i64 = i64(size / float(price))
        return guess + (whole * SCALE + rest - guess * price) // price
    return fitting((int(whole) * SCALE + int(rest)) // int(price))


def part_of(amount: i64, ppm: i64) -> i64:
    """Return `amount * ppm // 10^6` for amount >= 0, with intermediate values within 64 bits."""
    whole: i64 = amount // MILLION
    return whole * ppm + (amount - whole * MILLION) * ppm // MILLION
