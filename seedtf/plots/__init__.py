"""The figures. Importing the package imports Matplotlib; the variable MPLBACKEND is ignored."""

from seedtf.compat.matplotlib import import_matplotlib

import_matplotlib()
