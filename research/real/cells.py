"""The cells of the evidence on real text, and the workspace that measures each once."""

import functools
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import spacy
from spacy.language import Language
from spacy.training import Example

from research.cache import Digests, cached, cached_folder, cached_json, digest, seconds_in
from research.commands import report
from research.mini_world import MODELS, ROOT, folder_sums
from research.real.answers import link_gold_mentions, link_raw_texts
from research.real.ner import STEPS, train_ner
from research.real.text import SOURCES, Corpus, make_corpus
from spacy_gemel.data.reader import read_docs
from spacy_gemel.evaluation.decision_cases import collect_cases
from spacy_gemel.evaluation.decision_report import fit
from spacy_gemel.kb.builder import build_kb
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.linking.decision import Decision
from spacy_gemel.models.sentence_encoder import load_sentence_encoder
from spacy_gemel.models.tokenizer import load_tokenizer
from spacy_gemel.pipeline.loaded_pipeline import FACTORY, linker_of, overridden
from spacy_gemel.utils.files import write_json

BASE: Mapping[str, Any] = {
    "n_demonstrations": 8,
    "beam_size": 5,
    "n_candidates": 5,
    "name_end": "newline",
    "constrained": True,
    "prior_weight": 0.0,
}
"""The settings that cells change one at a time; all of them use the text alone."""
DTYPE = "bfloat16"
RETRIEVERS = {
    "dense": "spacy_gemel.SentenceTransformerRetriever.v1",
    "bm25": "spacy_gemel.BM25Retriever.v1",
    "random": "spacy_gemel.RandomRetriever.v1",
    "none": "spacy_gemel.NoRetriever.v1",
}
_FILES = {"language_model": "config.json", "sentence_encoder": "config.json"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One setting on one data set.

    Attributes:
        dataset: One of SOURCES.
        name: Of the setting.
        retriever: One of RETRIEVERS.
        changes: Of BASE.
        dtype: The language model's.
        chunks: So many chunks of the asked docs; None for all.
        with_decision: Whether a decision decides, fitted on training docs that are held out.
        raw_texts: Whether a NER finds the mentions.
    """

    dataset: str
    name: str
    retriever: str = "dense"
    changes: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = DTYPE
    chunks: int | None = None
    with_decision: bool = False
    raw_texts: bool = False

    @property
    def id(self) -> str:
        """DATASET.NAME."""
        return f"{self.dataset}.{self.name}"


def _retrievers(dataset: str) -> list[Cell]:
    """Table 6 of the paper."""
    return [Cell(dataset, "text_only"), *(Cell(dataset, name, name) for name in ("none", "random", "bm25"))]


FEW = 5
"""Chunks, of about 500 mentions, of the cells that change one setting; differences are taken over the same mentions."""


CELLS = (
    *_retrievers("wikidiverse"),
    Cell("wikidiverse", "fp32", dtype="float32", chunks=3),
    *(Cell("wikidiverse", f"n_{n}", changes={"n_demonstrations": n}, chunks=FEW) for n in (2, 4, 16)),
    *(Cell("wikidiverse", f"sets_{n}", changes={"demonstration_sets": n}, chunks=FEW) for n in (1, 16, 64, 256)),
    Cell("wikidiverse", "eos", changes={"name_end": "eos"}, chunks=FEW),
    Cell("wikidiverse", "unconstrained", changes={"constrained": False}, chunks=FEW),
    Cell("wikidiverse", "decision", with_decision=True),
    *_retrievers("wikimel"),
    *_retrievers("richpediamel"),
    Cell("wikidiverse", "end_to_end", raw_texts=True, chunks=FEW),
)
"""In the order of their importance."""


def choose(names: Iterable[str], cells: Sequence[Cell] = CELLS) -> list[Cell]:
    """The cells of some ids or data sets; all without any. Raises ValueError for an unknown name."""
    names = [*names]
    known = {cell.id for cell in cells} | {cell.dataset for cell in cells}
    if unknown := [name for name in names if name not in known]:
        ids = ", ".join(cell.id for cell in cells)
        raise ValueError(f"there is no cell {', '.join(unknown)}: give a data set or one of {ids}")
    return [cell for cell in cells if not names or cell.id in names or cell.dataset in names]


@functools.cache
def code_digest() -> str:
    """Of the package's own sources, but for the command line and the readers of data."""
    folder, rooms = ROOT / "spacy_gemel", ("decoding", "kb", "linking", "models", "pipeline")
    return digest([folder_sums(folder / room, ".py") for room in rooms])[:12]


class Workspace:
    """Measures cells in a folder, where everything is cached by a key of all it reads.

    A change of the package's own code makes nothing run again (see `forget`), but each cell says what code made it.
    """

    def __init__(self, data: Path, models: Path, folder: Path) -> None:
        self.data, self.models, self.folder = data, models, folder
        self.digests = Digests(folder / "digests.json")
        self._corpora: dict[str, Corpus] = {}
        self._kb: tuple[Path, str] | None = None
        self._pipeline: tuple[Any, Language] | None = None  # the last, with what it was made of

    def check(self, cells: Iterable[Cell]) -> None:
        """Raises ValueError, before any long work, if a file that the cells need is missing."""
        for name, file in _FILES.items():
            if not (self.models / name / file).is_file():
                raise ValueError(
                    f"{self.models / name}: no model there ({file} is missing); make it with "
                    "`python -m spacy project run real-models`"
                )
        needed = ["kb/entities.jsonl", *(file for cell in cells for file in SOURCES[cell.dataset].files)]
        for file in dict.fromkeys(needed):
            if not (self.data / file).is_file():
                raise ValueError(
                    f"{self.data / file}: no such file; --data is a folder with kb/, wikidiverse/ and so on"
                )

    # What cells read

    def kb(self) -> tuple[Path, str]:
        """The knowledge base for the language model's tokenizer, with vectors of descriptions, and its key."""
        if self._kb is None:
            entities, model = self.data / "kb" / "entities.jsonl", self.models / "language_model"
            encoder = self.models / "sentence_encoder"
            key = digest(self.digests.file(entities), self.digests.tree(model))  # vectors change no cell's answers
            folder = self.folder / "kb"

            def make(partial: Path) -> None:
                report("building the knowledge base")
                encode = load_sentence_encoder(str(encoder), device="cpu")
                build_kb(entities, partial / "kb", load_tokenizer(str(model)), encode=encode, progress=False)

            cached_folder(folder, digest(key, self.digests.tree(encoder)), "kb", make)
            self._kb = folder / "kb", key
        return self._kb

    def corpus(self, dataset: str) -> Corpus:
        """The data set's docs."""
        if dataset not in self._corpora:
            kb = KnowledgeBase.open(self.kb()[0])
            folder = self.folder / "corpus" / dataset
            self._corpora[dataset] = make_corpus(SOURCES[dataset], self.data, folder, kb, self.digests)
        return self._corpora[dataset]

    def key(self, cell: Cell) -> str:
        """Changes with everything that the cell's answers depend on, but for the package's code."""
        encoder = self.digests.tree(self.models / "sentence_encoder") if cell.retriever == "dense" else ""
        how = [cell.retriever, dict(BASE) | dict(cell.changes), cell.dtype, cell.chunks, cell.with_decision]
        ner = STEPS if cell.raw_texts else None
        return digest(self.kb()[1], self.corpus(cell.dataset).key, encoder, how, ner)

    # Measuring

    def rows(self, cell: Cell) -> list[dict[str, Any]] | None:
        """The cell's rows; None if some are still to be made."""
        contents = [cached(path, self.key(cell)) for path in self._row_files(cell)]
        complete = [content for content in contents if content is not None]
        return [row for content in complete for row in content["rows"]] if len(complete) == len(contents) else None

    def seconds(self, cell: Cell) -> float:
        """What the cached parts of a cell took."""
        contents = [cached(path, self.key(cell)) for path in self._row_files(cell)]
        return round(sum(seconds_in(content) or 0.0 for content in contents), 1)

    def code(self, cell: Cell) -> list[str]:
        """The digests of the code that made the cached parts of a cell."""
        contents = [cached(path, self.key(cell)) for path in self._row_files(cell)]
        return sorted({str(content.get("code")) for content in contents if content is not None})

    def _row_files(self, cell: Cell) -> list[Path]:
        chunks = self.corpus(cell.dataset).chunks[: cell.chunks]
        return [self.folder / "cells" / cell.id / f"{part.stem}.json" for part in chunks]

    def measure(self, cell: Cell) -> None:
        """Answer what is not cached, part by part."""
        key, corpus = self.key(cell), self.corpus(cell.dataset)
        link = link_raw_texts if cell.raw_texts else link_gold_mentions
        files = self._row_files(cell)
        for part, file in zip(corpus.chunks, files, strict=False):
            if cached(file, key) is not None:
                continue
            report(f"{cell.id}: part {int(part.stem) + 1} of {len(files)}")
            settings = {**BASE, **cell.changes}
            decision = Decision(**self.decision(cell)["decision"]) if cell.with_decision else None
            nlp = self.pipeline_of(cell, corpus.pool)
            linker_of(nlp).use_decision(decision)
            start = time.perf_counter()
            with overridden(linker_of(nlp), **settings):
                rows = link(nlp, part)
            seconds = round(time.perf_counter() - start, 1)
            write_json(file, {"key": key, "code": code_digest(), "seconds": seconds, "rows": rows})
        self.digests.save()

    def decision(self, cell: Cell) -> dict[str, Any]:
        """The `decision` that `fit-decision` fits on training docs that this pipeline never shows."""
        corpus = self.corpus(cell.dataset)

        def make() -> dict[str, Any]:
            report(f"{cell.id}: fitting the decision")
            nlp = self.pipeline_of(cell, corpus.rest)
            linker_of(nlp).use_decision(None)
            with overridden(linker_of(nlp), **BASE):
                cases, columns = collect_cases(nlp, corpus.held_out, progress=False)
            return {"decision": asdict(fit(cases, columns, columns)), "mentions": len(cases)}

        return cached_json(self.folder / "cells" / cell.id / "decision.json", self.key(cell), make)

    def pipeline_of(self, cell: Cell, pool: Path) -> Language:
        """A pipeline whose linker shows the mentions of a .spacy file; the last one if it is the same."""
        made_of = [str(pool), cell.retriever, cell.dtype, cell.raw_texts]
        if self._pipeline is None or self._pipeline[0] != made_of:
            self._pipeline = None  # frees the last one's memory
            nlp = spacy.load(self._ner(cell)) if cell.raw_texts else spacy.blank("en")
            self._pipeline = made_of, self._with_linker(nlp, cell, pool)
        return self._pipeline[1]

    def _with_linker(self, nlp: Language, cell: Cell, pool: Path) -> Language:
        retriever = {"@misc": RETRIEVERS[cell.retriever]}
        if cell.retriever == "dense":
            retriever["name"] = str((self.models / "sentence_encoder").absolute())
        # a linker must have a vision encoder, and this one gets no image
        vision_encoder = {"@misc": "spacy_gemel.OpenCLIP.v1", "name": str(ROOT / MODELS / "vision_encoder")}
        language_model = str((self.models / "language_model").absolute())
        nlp.add_pipe(
            FACTORY,
            config={
                "use_image": False,
                "language_model": {"@misc": "spacy_gemel.CausalLM.v1", "name": language_model, "dtype": cell.dtype},
                "vision_encoder": vision_encoder,
                "retriever": retriever,
            },
        )
        docs = [*read_docs(pool, nlp.vocab)]
        linker_of(nlp).initialize(
            lambda: [Example(nlp.make_doc(doc.text), doc) for doc in docs],
            nlp=nlp,
            kb_loader=lambda vocab: KnowledgeBase.open(self.kb()[0]),
        )
        return nlp

    def _ner(self, cell: Cell) -> Path:
        """The folder of the NER, trained on the shown docs."""
        corpus, folder = self.corpus(cell.dataset), self.folder / "ner" / cell.dataset

        def make(partial: Path) -> None:
            report(f"{cell.id}: training a NER, {STEPS} steps")
            train_ner(corpus.pool, partial)

        cached_folder(folder, digest(corpus.key, STEPS), "model-best", make)
        return folder / "model-best"

    def forget(self, cells: Iterable[Cell]) -> None:
        """Delete what is cached of some cells."""
        for cell in cells:
            shutil.rmtree(self.folder / "cells" / cell.id, ignore_errors=True)
