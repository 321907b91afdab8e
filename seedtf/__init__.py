"""seedtf: from a folder of labelled images to a served image classifier, in TensorFlow.

An image travels one way through the package::

    files -> catalog -> store -> pipeline -> model -> callbacks -> evaluation -> export
                                  ^   ^
                              order   augment

``data/`` holds the first half, ``model/`` the network, ``training/`` composes them and
``commands/`` parses the flags of one verb each. This module imports nothing, so that
``seedtf --help`` and the catalog work without TensorFlow.
"""

__version__ = "0.1.0"
