"""A loaded pipeline, seen from outside: its linker, and the pipes that set its mentions."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from spacy_gemel.pipeline.user_data import CANDIDATES_KEY

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc, Span

    from spacy_gemel.kb.knowledge_base import KnowledgeBase
    from spacy_gemel.linking.demonstrations import Demonstration
    from spacy_gemel.linking.settings import LinkerSettings

FACTORY = "gemel_linker"


class LinkerPipe(Protocol):
    """What evaluation and the commands need of the gemel_linker pipe."""

    @property
    def settings(self) -> "LinkerSettings":
        """The settings in force."""

    def configure(self, **changes: Any) -> None:
        """Change settings by name."""

    @property
    def kb(self) -> "KnowledgeBase":
        """The knowledge base that it links to."""

    @property
    def training_golds(self) -> frozenset[str]:
        """The gold ids of its training set."""

    def demonstrations_for(self, doc: "Doc", span: "Span") -> "Sequence[Demonstration]":
        """The demonstrations in the prompt of a mention, the most similar last."""


def load_pipeline(path: str, *, gpu_id: int = -1) -> "Language":
    """spacy.load on the device asked for. Raises OSError or ValueError where there is no pipeline."""
    import spacy
    from thinc.api import require_gpu

    if gpu_id >= 0:
        require_gpu(gpu_id)
    folder = Path(path)
    if folder.is_dir() and not (folder / "config.cfg").is_file():
        raise ValueError(f"{path}: no spaCy pipeline in this folder (no config.cfg); try its model-best")
    return spacy.load(path)


def linker_name(nlp: "Language") -> str:
    """The name of the pipeline's linker, whatever it was called. ValueError where it has none."""
    for name in nlp.pipe_names:
        if nlp.get_pipe_meta(name).factory == FACTORY:
            return name
    raise ValueError(f"the pipeline has no {FACTORY} among its pipes ({', '.join(nlp.pipe_names) or 'none'})")


def linker_of(nlp: "Language") -> LinkerPipe:
    """The pipeline's linker. ValueError where it has none."""
    return cast(LinkerPipe, nlp.get_pipe(linker_name(nlp)))


def entity_pipes(nlp: "Language") -> list[str]:
    """The pipes that set doc.ents, by their own account: a NER, an entity ruler and the like."""
    sets = {"doc.ents", "token.ent_iob", "token.ent_type"}
    return [name for name in nlp.pipe_names if sets & set(nlp.get_pipe_meta(name).assigns)]


def measured_settings(nlp: "Language") -> dict[str, Any]:
    """The linker's settings as they are in force, and what it is made of: what figures are of, as JSON has it.

    None for a part that the pipeline's config does not name. ValueError where it has no linker.
    """
    settings = asdict(linker_of(nlp).settings)
    config: dict[str, Any] = nlp.config["components"].get(linker_name(nlp), {})

    def of(block: str, key: str) -> Any:
        return (config.get(block) or {}).get(key)

    return {
        **settings,
        "labels_discard": list(settings["labels_discard"]),
        "retriever": of("retriever", "@misc"),
        "language_model": of("language_model", "name"),
        "vision_encoder": of("vision_encoder", "name"),
        "prefix_length": of("model", "prefix_length"),
    }


@contextmanager
def overridden(linker: LinkerPipe, **changes: Any) -> Iterator[LinkerPipe]:
    """Change settings of the linker for the length of a with block. Raises ValueError as `configure` does."""
    before = {name: getattr(linker.settings, name, None) for name in changes}
    linker.configure(**changes)
    try:
        yield linker
    finally:
        linker.configure(**before)


def candidate_rows(doc: "Doc") -> dict[tuple[int, int], list[dict[str, Any]]]:
    """The candidates of each linked span of a doc, best first, by its character offsets."""
    return {
        (row[0], row[1]): [
            {"kb_id": kb_id, "name": name, "score": float(score), "probability": float(probability)}
            for kb_id, name, score, probability in row[2:]
        ]
        for row in doc.user_data.get(CANDIDATES_KEY, ())
    }


def probability_of(kb_id: str, candidates: Sequence[dict[str, Any]]) -> float | None:
    """The probability of the chosen candidate; None for NIL and where it is not among them."""
    return next((c["probability"] for c in candidates if c["kb_id"] == kb_id), None)
