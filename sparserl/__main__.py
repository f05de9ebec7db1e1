"""`python -m sparserl` is the same as `sparserl`."""

import sys

from sparserl.cli import main

sys.exit(main())
