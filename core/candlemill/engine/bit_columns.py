"""Columns of integers in as few bits as they need: Rice codes, whose parameter follows the numbers block by block.

A number is written as its sign and size folded into one, of which the low `k` bits are kept as they are and the rest
is counted in ones. So small numbers are short, and none is long: from `ESCAPE` ones on it is written whole.
"""

from typing import Final

import numpy as np
from librt.vecs import append, vec
from mypy_extensions import i64

from candlemill.engine.candles import native, view

CODED: Final = 64  # numbers with the same parameter
ESCAPE: Final = 24
WORD: Final = 32  # bits
LOW: Final = (1 << 32) - 1
CHUNK: Final = 31  # bits that are written or read at a time
WHOLE: Final = 63  # bits of a number that is written whole
HEADER: Final = 6  # bits: 0 for a block of zeros, otherwise its parameter and 1
BYTES: Final = np.arange(256)
ONES: Final = np.log2((BYTES + 1) & ~BYTES).astype(np.int64)  # how many ones each byte ends with


class ColumnWriter:
    """Writes numbers from 0 to 2^63 - 1, and columns of numbers between -2^62 and 2^62."""

    def __init__(self) -> None:
        self.words: vec[i64] = vec[i64]()
        self.rest: i64 = 0
        self.bits: i64 = 0  # of the rest

    def put(self, value: i64, width: i64) -> None:
        while width > CHUNK:
            self.put_short(low(value, CHUNK), CHUNK)
            value >>= CHUNK
            width -= CHUNK
        self.put_short(value, width)

    def put_short(self, value: i64, width: i64) -> None:
        """Write the `width` low bits of a value that has no others, at most 31."""
        self.rest |= value << self.bits
        self.bits += width
        if self.bits >= WORD:
            self.words = append(self.words, self.rest & LOW)
            self.rest >>= WORD
            self.bits -= WORD

    def number(self, value: i64) -> None:
        """Write a number of 0 or more."""
        width: i64 = bit_length(value)
        self.put_short(width, HEADER)
        self.put(value, width)

    def column(self, values: vec[i64]) -> None:
        """Write a column, divided by its common divisor."""
        n: i64 = len(values)
        unit: i64 = common_divisor(values)
        self.number(n)
        self.number(unit)
        folded: vec[i64] = native(np.zeros(CODED, dtype=np.int64))
        first: i64 = 0
        while first < n:
            count: i64 = min(CODED, n - first)
            i: i64 = 0
            while i < count:
                value: i64 = values[first + i]
                if unit > 1:
                    value //= unit
                folded[i] = 2 * value if value >= 0 else -2 * value - 1
                i += 1
            self.block(folded, count)
            first += count

    def block(self, folded: vec[i64], count: i64) -> None:
        k: i64 = parameter_of(folded, count)
        self.put_short(k + 1, HEADER)
        if k < 0:
            return
        i: i64 = 0
        while i < count:
            ones: i64 = folded[i] >> k
            if ones < ESCAPE:
                self.put_short(ones_of(ones), ones + 1)
                self.put(low(folded[i], k), k)
            else:
                self.put_short(ones_of(ESCAPE), ESCAPE)
                self.put(folded[i], WHOLE)
            i += 1

    def to_bytes(self) -> bytes:
        """Return all that was written; nothing more can be."""
        found: bytes = view(append(self.words, self.rest)).astype("<u4").tobytes()
        return found


def low(value: i64, count: i64) -> i64:
    """Return the `count` low bits of a value. (mypyc shifts a literal 1 as a 32-bit number, so it makes no mask.)"""
    return value - ((value >> count) << count)


def ones_of(count: i64) -> i64:
    """Return a number of so many ones, at most 30."""
    return (1 << count) - 1


def bit_length(value: i64) -> i64:
    width: i64 = 0
    while value > 0:
        value >>= 1
        width += 1
    return width


def common_divisor(values: vec[i64]) -> i64:
    """Return the greatest common divisor, 1 for zeros alone."""
    found: i64 = 0
    n: i64 = len(values)
    i: i64 = 0
    while i < n and found != 1:
        value: i64 = values[i] if values[i] >= 0 else -values[i]
        if found == 0 or value % found != 0:
            while value != 0:
                found, value = value, found % value
        i += 1
    return max(1, found)


def parameter_of(folded: vec[i64], count: i64) -> i64:
    """Return the parameter with the shortest code, -1 for zeros alone: the search goes down from the mean's."""
    total: i64 = 0
    i: i64 = 0
    while i < count:
        total += min(folded[i], (1 << 56) - 1)  # the sum of a block fits
        i += 1
    if total == 0:
        return -1
    best: i64 = bit_length(total // count)
    shortest: i64 = bits_of(folded, count, best)
    while best > 0:
        bits: i64 = bits_of(folded, count, best - 1)
        if bits > shortest:
            break
        shortest = bits
        best -= 1
    return best


def bits_of(folded: vec[i64], count: i64, k: i64) -> i64:
    """Return the bits of a block's codes."""
    bits: i64 = 0
    i: i64 = 0
    while i < count:
        ones: i64 = folded[i] >> k
        bits += ones + 1 + k if ones < ESCAPE else ESCAPE + WHOLE
        i += 1
    return bits


class ColumnReader:
    """Reads what a ColumnWriter has written."""

    def __init__(self, data: bytes) -> None:
        words = np.zeros(len(data) // 4 + 2, dtype=np.int64)  # two more than are read
        words[:-2] = np.frombuffer(data, dtype="<u4")
        self.words: vec[i64] = native(words)
        self.ones: vec[i64] = native(ONES)
        self.at: i64 = 0
        self.rest: i64 = 0
        self.bits: i64 = 0

    def take(self, width: i64) -> i64:
        """Read `width` bits, at most 63."""
        value: i64 = 0
        shift: i64 = 0
        while shift < width:
            part: i64 = min(CHUNK, width - shift)
            if self.bits < part:
                self.rest |= self.words[self.at] << self.bits
                self.at += 1
                self.bits += WORD
            value |= low(self.rest, part) << shift
            self.rest >>= part
            self.bits -= part
            shift += part
        return value

    def number(self) -> i64:
        return self.take(self.take(HEADER))

    def column(self) -> vec[i64]:
        n: i64 = self.number()
        unit: i64 = self.number()
        out: vec[i64] = native(np.zeros(int(n), dtype=np.int64))
        first: i64 = 0
        while first < n:
            end: i64 = min(first + CODED, n)
            k: i64 = self.take(HEADER) - 1
            if k >= 0:
                self.block(out, first, end, k, unit)
            first = end
        return out

    def block(self, out: vec[i64], first: i64, end: i64, k: i64, unit: i64) -> None:
        words, table = self.words, self.ones
        at: i64 = self.at
        rest: i64 = self.rest
        bits: i64 = self.bits
        i: i64 = first
        while i < end:
            if bits < WORD:
                rest |= words[at] << bits
                at += 1
                bits += WORD
            ones: i64 = table[rest & 255]
            rest >>= ones
            if ones == 8:
                while ones < ESCAPE and rest & 1 != 0:
                    rest >>= 1
                    ones += 1
            if ones == ESCAPE or k > CHUNK:
                bits -= ones
                if ones < ESCAPE:
                    rest >>= 1
                    bits -= 1
                self.at, self.rest, self.bits = at, rest, bits
                folded: i64 = self.take(WHOLE) if ones == ESCAPE else (ones << k) | self.take(k)
                at, rest, bits = self.at, self.rest, self.bits
            else:
                rest >>= 1
                bits -= ones + 1
                if bits < k:
                    rest |= words[at] << bits
                    at += 1
                    bits += WORD
                folded = (ones << k) | low(rest, k)
                rest >>= k
                bits -= k
            value: i64 = folded >> 1
            if folded & 1 != 0:
                value = -value - 1
            out[i] = value * unit
            i += 1
        self.at, self.rest, self.bits = at, rest, bits
