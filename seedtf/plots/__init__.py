"""The figures. Importing a module of this package imports Matplotlib, whatever MPLBACKEND says."""

from seedtf.compat.matplotlib import import_matplotlib

import_matplotlib()
