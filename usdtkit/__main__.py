"""`python -m usdtkit` is the command `usdtkit`."""

import sys

from usdtkit.cli import main

sys.exit(main())
