"""Cursors of paginated lists. A cursor encodes where the next page begins; clients treat it as opaque."""

import base64
import binascii

from candlemill.errors import BadInput


def page_cursor(position: int | str) -> str:
    return base64.urlsafe_b64encode(str(position).encode()).decode().rstrip("=")


def text_of(cursor: str) -> str:
    """Decode a cursor to its text. Raises BadInput."""
    try:
        return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise BadInput(f"cursor {cursor!r} is not one that a page gave") from None


def offset_of(cursor: str) -> int:
    """Decode a cursor to an offset, 0 for an empty cursor. Raises BadInput."""
    text = text_of(cursor) if cursor else "0"
    if not (text.isascii() and text.isdecimal()) or len(text) > 9:
        raise BadInput(f"cursor {cursor!r} is not one that a page gave")
    return int(text)


def position_of(cursor: str) -> tuple[int, str]:
    """Decode a cursor to a number and an id. Raises BadInput."""
    number, _, name = text_of(cursor).partition("/")
    if not (number.isascii() and number.isdecimal()) or len(number) > 18 or not name:
        raise BadInput(f"cursor {cursor!r} is not one that a page gave")
    return int(number), name
