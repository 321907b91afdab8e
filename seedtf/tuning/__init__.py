"""Hyperparameter search (``seedtf tune``): its flags, trials, study, loop and result files."""
