"""The knowledge base: entities on disk and the trie of their names; built, checked, extended, and gold ids resolved.

Import from the modules: ``knowledge_base.KnowledgeBase``, ``entity.Entity`` and ``KBError``, ``builder.build_kb``,
``check.check_kb``, ``resolve.resolve_gold``. ``trie`` and ``trie_builder`` need only numpy. Nothing here imports
spaCy or torch.
"""
