"""The figures. Importing a module of this package imports Matplotlib; MPLBACKEND has no influence."""

from seedtf.compat.matplotlib import import_matplotlib

import_matplotlib()
