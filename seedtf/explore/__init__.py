"""``seedtf explore``: one page on which the images of a folder or a cross-validation are reviewed."""
