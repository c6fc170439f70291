"""`spacy gemel COMMAND`, as `python -m spacy_gemel COMMAND`: spaCy's command line imports this by its entry point."""

from spacy.cli._util import app as spacy_app

from spacy_gemel.__main__ import app

spacy_app.add_typer(app, name="gemel")
