"""``seedtf benchmark gpu``: checks a GPU against the CPU, and measures how much of it training uses.

The benchmark consists of parts. Each runs in a process of its own with a time limit, so that a part
that fails or hangs costs only its own time. ``parts`` lists them, ``session`` runs them, and
``checks``, ``speed`` and ``runs`` have the functions that they call.
"""
