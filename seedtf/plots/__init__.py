"""Draws all figures with Matplotlib, which is imported here without regard to MPLBACKEND."""

from seedtf.compat.matplotlib import import_matplotlib

import_matplotlib()
