"""Entity linking from a document's text and its image: GEMEL as a spaCy component.

Nothing is imported here on purpose: `import spacy_gemel` loads neither spaCy nor torch. spaCy finds the pipe
through the package's entry points: `nlp.add_pipe("gemel_linker")`.
"""

__version__ = "0.1.0"
