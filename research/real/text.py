"""The real texts as .spacy files: docs that are shown as demonstrations, and docs that are asked, in parts."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import spacy
from spacy.tokens import Doc, DocBin, Span

from research.cache import Digests, cached_folder, digest, read_object
from spacy_gemel.data.datasets.converters import convert
from spacy_gemel.data.reader import read_docs
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.kb.resolve import resolve_gold
from spacy_gemel.utils.files import write_json

SAMPLE = 1000
"""Mentions asked of a data set that has no part of its own for it."""
PART = 100
"""Mentions after which a part ends: what an interrupt loses at most."""
HELD_OUT = 500
"""Training mentions that the decision is fitted on."""


@dataclass(frozen=True, slots=True)
class Source:
    """A data set's files below the data folder.

    Attributes:
        form: What `convert` calls it.
        train: The docs to show.
        asked: The docs to ask; None to take SAMPLE mentions out of `train`.
    """

    form: str
    train: str
    asked: str | None = None

    @property
    def files(self) -> list[str]:
        """All of them."""
        return [self.train] if self.asked is None else [self.train, self.asked]


SOURCES = {
    # here in the cleaned form of MIMIC and KGMEL
    "wikidiverse": Source("mimic", "wikidiverse/train.json", "wikidiverse/val.json"),
    "wikimel": Source("wikimel", "wikimel/Wikidata-MEL.json"),
    "richpediamel": Source("richpediamel", "richpediamel/Richpedia-MEL.json"),
}


@dataclass(frozen=True, slots=True)
class Corpus:
    """A data set's folder. key: changes with the files it was made of."""

    folder: Path
    key: str

    @property
    def pool(self) -> Path:
        """All docs whose mentions may be demonstrations; none has the text of an asked doc of the same file."""
        return self.folder / "shown.spacy"

    @property
    def held_out(self) -> Path:
        """Training docs of about HELD_OUT mentions, to fit on."""
        return self.folder / "held_out.spacy"

    @property
    def rest(self) -> Path:
        """The shown docs without the texts that are held out."""
        return self.folder / "rest.spacy"

    @property
    def chunks(self) -> list[Path]:
        """The asked docs, in the order of their ids' hashes."""
        return sorted((self.folder / "asked").glob("*.spacy"))

    @property
    def sizes(self) -> dict[str, Any]:
        """How many docs and mentions are asked, and shown."""
        return read_object(self.folder / "sizes.json")


def make_corpus(source: Source, data: Path, folder: Path, kb: KnowledgeBase, digests: Digests) -> Corpus:
    """Convert a data set and divide it, unless it is cached. Only mentions with a gold of the KB are asked."""
    sums = [digests.file(data / name) for name in source.files]
    corpus = Corpus(folder, digest(source.form, sums, kb.meta.entities, SAMPLE, PART, HELD_OUT))

    def make(partial: Path) -> None:
        pool, *rest = [_converted(source.form, data / name, partial) for name in source.files]
        asked = take(rest[0] if rest else pool, None if rest else SAMPLE, kb)
        if not rest:
            pool = without(pool, asked)
        held_out = take(pool, HELD_OUT, kb)
        (partial / "asked").mkdir()
        for number, part in enumerate(in_parts(asked)):
            write_docs(part, partial / "asked" / f"{number:03}.spacy")
        for path, docs in ((corpus.pool, pool), (corpus.held_out, held_out), (corpus.rest, without(pool, held_out))):
            write_docs(docs, partial / path.name)
        sizes = {f"{name}_docs": len(docs) for name, docs in (("asked", asked), ("shown", pool))}
        sizes |= {f"{name}_mentions": count_mentions(docs) for name, docs in (("asked", asked), ("shown", pool))}
        write_json(partial / "sizes.json", sizes)

    cached_folder(folder, corpus.key, "shown.spacy", make)
    return corpus


def _converted(form: str, path: Path, folder: Path) -> list[Doc]:
    output = folder / f"{path.stem}.spacy"
    convert(form, path, output, progress=False)
    return [*read_docs(output, spacy.blank("en").vocab)]


def take(docs: Iterable[Doc], n: int | None, kb: KnowledgeBase) -> list[Doc]:
    """Copies of docs by the hash of their ids, with the mentions whose gold is in the KB: `n` of them, or all."""
    ordered = sorted(docs, key=lambda doc: hashlib.sha256(str(doc.user_data.get("id")).encode()).hexdigest())
    taken: list[Doc] = []
    for doc in ordered:
        ents = [ent for ent in doc.ents if resolve_gold(kb, ent.kb_id_) is not None][:n]
        if ents:
            copy = doc.copy()
            copy.set_ents([Span(copy, ent.start, ent.end, label=ent.label_, kb_id=ent.kb_id_) for ent in ents])
            taken.append(copy)
        if n is not None and (n := n - len(ents)) == 0:
            break
    return taken


def without(docs: Iterable[Doc], rest: Iterable[Doc]) -> list[Doc]:
    """The docs that have no text of the rest."""
    texts = {doc.text for doc in rest}
    return [doc for doc in docs if doc.text not in texts]


def in_parts(docs: Sequence[Doc]) -> Iterator[list[Doc]]:
    """Docs of at least PART mentions together; the last part has what is left. Docs of one text stay together."""
    part: list[Doc] = []
    for doc in docs:
        if count_mentions(part) >= PART and doc.text != part[-1].text:
            yield part
            part = []
        part.append(doc)
    if part:
        yield part


def count_mentions(docs: Iterable[Doc]) -> int:
    """The mentions of all docs."""
    return sum(len(doc.ents) for doc in docs)


def write_docs(docs: Iterable[Doc], path: Path) -> None:
    """Write a .spacy file."""
    DocBin(docs=docs, store_user_data=True).to_disk(path)
