"""Search over training flags: what is searched, one trial, the study, its image."""
