"""Lets ``python -m seedtf`` do the same as the command ``seedtf``."""

import sys

from seedtf.commands.main import main

sys.exit(main())
