"""The hyperparameter search of ``seedtf tune``: search space, study, trials and result files."""
