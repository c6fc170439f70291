"""spaCy's side: Docs in, Docs out."""
