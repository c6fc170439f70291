"""spaCy's own linkers as baselines, trained and measured on the same mentions."""
