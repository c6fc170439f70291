"""The knowledge base: entities on disk and the trie of their names. Nothing here imports spaCy or torch."""
