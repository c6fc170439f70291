"""The commands that have a module of their own; spacy_gemel/cli.py registers them."""
