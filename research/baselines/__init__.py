"""spaCy's own linker as a baseline, trained and measured on the same mentions."""
