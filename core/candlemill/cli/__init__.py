"""The command line."""

import os

# Set before any module of the command line imports NumPy: candlemill uses little linear algebra, and idle threads would
# cost memory and start-up time. A process with several threads cannot fork its workers either.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
