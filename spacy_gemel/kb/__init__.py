"""The knowledge base: entities on disk, the trie of their names, and their builder.

Import from the modules, so that the trie comes without pyarrow:

- ``spacy_gemel.kb.entity``: ``Entity``
- ``spacy_gemel.kb.errors``: ``KBError``
- ``spacy_gemel.kb.trie``: ``NameTrie``, ``TrieArrays``, ``ROOT`` (numpy only)
- ``spacy_gemel.kb.trie_builder``: ``build_trie``, ``trie_from_names`` (numpy only)
- ``spacy_gemel.kb.knowledge_base``: ``KnowledgeBase``
- ``spacy_gemel.kb.builder``: ``build_kb``, ``BuildReport``
- ``spacy_gemel.kb.check``: ``check_kb``
"""
