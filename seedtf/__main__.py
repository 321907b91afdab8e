"""``python -m seedtf`` is ``seedtf``."""

import sys

from seedtf.commands.main import main

sys.exit(main())
