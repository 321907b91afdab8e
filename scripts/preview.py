"""``python scripts/preview.py …`` is ``seedtf preview …``, also in a clone that is not installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from seedtf.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["preview", *sys.argv[1:]]))
