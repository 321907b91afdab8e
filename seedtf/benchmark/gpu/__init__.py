"""``seedtf benchmark gpu``: is a GPU's training right, and how near is it to what the card can do.

Each part is a process of its own with a limit of seconds, so that one that fails or hangs costs only
its own time. ``parts`` lists them, ``checks``, ``speed`` and ``runs`` are what they do, and ``session``
runs them.
"""
