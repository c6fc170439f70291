"""python -m spacy_gemel COMMAND."""

from spacy_gemel.cli import main

if __name__ == "__main__":
    main()
