"""The commands of `python -m spacy_gemel`, one module each."""
