"""Hyperparameter search: the searched flags, one trial, the study, the search and its records."""
