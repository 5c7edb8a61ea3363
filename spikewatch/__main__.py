"""`python -m spikewatch` is the command `spikewatch`."""

import sys

from .cli import main


sys.exit(main())
