"""`python -m candlemill`: the command line, where its script is not on the path."""

import sys

from candlemill.cli import main

sys.exit(main())
