"""Flag for whether this build of the engine is machine code or interpreted Python."""

import sys
from typing import Final

COMPILED: Final = not getattr(sys.modules[__name__], "__file__", "").endswith(".py")
