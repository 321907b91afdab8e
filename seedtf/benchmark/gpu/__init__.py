"""``seedtf benchmark gpu``: compares a GPU with the CPU, and measures how much of it training uses.

The benchmark consists of parts. Each part runs in its own process with a time limit, so that a part
that fails or hangs does not stop the others. The module ``parts`` lists the parts and ``session`` runs
them; ``checks``, ``speed`` and ``runs`` have the functions that the parts call.
"""
