"""Knowledge bases that people hold, made into the entities.jsonl that build-kb reads; one function per kind of source.

Import from the modules: ``spacy_gemel.imports.importer`` has ``import_kb``, ``KINDS`` and ``ImportOptions``.
"""
