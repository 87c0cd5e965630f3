"""Redirects NumPy's import of the C function `time`, which `datetime64("now")` reads.

An ELF library (Linux, the BSDs) calls a function of another library through an address that the loader has written into
a table. The dynamic section gives the table and its symbols: ELF-64, "Dynamic Linking" in the System V ABI. On other
systems nothing is redirected.
"""

import ctypes
import mmap
import sys
from collections.abc import Callable, Iterator
from typing import Final

RTLD_DI_LINKMAP: Final = 2
STRTAB, SYMTAB, RELA, RELA_SIZE, PLT_SIZE, JMPREL = 5, 6, 7, 8, 2, 23  # tags of the dynamic section
RELA_BYTES, SYMBOL_BYTES, WORD = 24, 24, 8
READ_AND_WRITE: Final = 3

Time = Callable[[], int]
_CTime = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_void_p)
_kept: list[object] = []  # keeps the callback alive: NumPy calls it until the process ends


class _LinkMap(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("name", ctypes.c_char_p), ("dynamic", ctypes.c_void_p))


def redirect(now: Time) -> bool:
    """Let NumPy call `now`, which returns seconds since 1970. Return False where this is not possible."""
    if not (sys.platform.startswith(("linux", "freebsd")) and sys.maxsize > 1 << 32 and sys.byteorder == "little"):
        return False
    library = sys.modules["numpy._core._multiarray_umath"].__file__

    def c_time(place: int | None) -> int:
        seconds = now()
        if place:
            ctypes.c_long.from_address(place).value = seconds
        return seconds

    stub = _CTime(c_time)
    address = ctypes.cast(stub, ctypes.c_void_p).value or 0
    slots = list(_slots(ctypes.CDLL(library), b"time"))
    if slots:
        _kept.append(stub)
    return bool(slots) and all(_write(slot, address) for slot in slots)


def _slots(library: ctypes.CDLL, symbol: bytes) -> Iterator[int]:
    """Yield the addresses of the table entries where the library keeps the address of the function `symbol`."""
    found = ctypes.POINTER(_LinkMap)()
    if ctypes.CDLL(None).dlinfo(ctypes.c_void_p(library._handle), RTLD_DI_LINKMAP, ctypes.byref(found)):
        return
    base, dynamic = found.contents.base or 0, found.contents.dynamic or 0
    tags: dict[int, int] = {}
    while tag := _word(dynamic):
        tags[tag] = _word(dynamic + WORD)
        dynamic += 2 * WORD
    if not {STRTAB, SYMTAB} <= tags.keys():
        return

    def at(tag: int) -> int:
        return tags[tag] if tags[tag] >= base else tags[tag] + base  # some loaders leave it relative

    for table, size in ((JMPREL, PLT_SIZE), (RELA, RELA_SIZE)):
        for k in range(tags.get(size, 0) // RELA_BYTES if table in tags else 0):
            entry = at(table) + k * RELA_BYTES
            number = _word(entry + WORD) >> 32
            name = ctypes.c_uint32.from_address(at(SYMTAB) + number * SYMBOL_BYTES).value
            if number and ctypes.string_at(at(STRTAB) + name) == symbol:
                yield base + _word(entry)


def _word(address: int) -> int:
    return ctypes.c_uint64.from_address(address).value


def _write(slot: int, value: int) -> bool:
    """Write a table entry; its memory page is made writable first, because the loader sets it read-only."""
    page = slot // mmap.PAGESIZE * mmap.PAGESIZE
    if ctypes.CDLL(None).mprotect(ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), READ_AND_WRITE):
        return False
    ctypes.c_uint64.from_address(slot).value = value
    return True
