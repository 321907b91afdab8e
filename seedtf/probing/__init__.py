"""``seedtf probe``: which pretrained network suits the data, without training one."""
