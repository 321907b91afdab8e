"""``seedtf probe``: finds the pretrained network that suits the data best, without training one."""
