"""A knowledge base out of a repository of the Hugging Face Hub."""

from pathlib import Path

from spacy_gemel.kb.entity import KBError
from spacy_gemel.kb.knowledge_base import DATA_FILES, VECTORS_FILE, KnowledgeBase
from spacy_gemel.kb.meta import META_FILE
from spacy_gemel.utils.files import link_file
from spacy_gemel.utils.hub import hub_errors


def open_hub_kb(repo: str, revision: str | None = None, *, verify: bool = False) -> KnowledgeBase:
    """Open the knowledge base of a repository, after fetching the files that this machine lacks, and no others.

    Raises ValueError if the Hub refuses, KBError as `KnowledgeBase.open`.
    """
    from huggingface_hub import cached_assets_path, snapshot_download

    files = [META_FILE, *DATA_FILES, VECTORS_FILE]
    with hub_errors(repo):
        snapshot = Path(snapshot_download(repo, revision=revision, allow_patterns=files))
    if not (snapshot / META_FILE).is_file():
        raise KBError(f"{repo} on the Hugging Face Hub holds no knowledge base: upload a folder that build-kb wrote")
    # The cache is made of links, and a knowledge base has none: a saved pipe must not lead to other files.
    folder = cached_assets_path("spacy-gemel", namespace=repo, subfolder=snapshot.name)
    for name in files:
        if (snapshot / name).is_file():
            link_file((snapshot / name).resolve(), folder / name)
    return KnowledgeBase.open(folder, verify=verify)
