"""A pipe that answers from a table, with what evaluation and the commands ask of gemel_linker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import spacy
from spacy.language import Language
from spacy.tokens import Doc, Span

from spacy_gemel.kb.entity import Entity
from spacy_gemel.linking.settings import LinkerSettings
from spacy_gemel.pipeline.user_data import candidate_rows

COUNTS = {"Mercury (planet)": 60, "Mercury (element)": 30, "Jaguar Cars": 8, "Jaguar": 2, "Java": 0}


class TableKB:
    def __init__(self, counts: Mapping[str, int] = COUNTS) -> None:
        self.rows = {kb_id: row for row, kb_id in enumerate(counts)}
        self.counts = np.array(list(counts.values()), dtype=np.int64)

    def row(self, kb_id: str) -> int | None:
        return self.rows.get(kb_id)

    def count(self, row: int) -> int:
        return int(self.counts[row])

    def entity(self, row: int) -> Entity:
        return Entity(list(self.rows)[row], list(self.rows)[row])

    def rows_by_surface(self, text: str) -> tuple[list[int], list[int]]:
        return [], []


@dataclass
class TableLinker:
    """`answers`: mention -> candidates, best first; `without_image`: when it may not look."""

    answers: Mapping[str, Sequence[str]]
    without_image: Mapping[str, Sequence[str]] = field(default_factory=dict)
    training_gold_ids: frozenset[str] = frozenset({"Mercury (planet)", "Jaguar"})
    settings: LinkerSettings = field(default_factory=lambda: LinkerSettings(n_demonstrations=2, batch_tokens=4096))
    kb: TableKB = field(default_factory=TableKB)
    decision: None = None

    def configure(self, **changes: Any) -> None:
        self.settings = self.settings.replace(**changes)

    def __call__(self, doc: Doc) -> Doc:
        rows = []
        for ent in doc.ents:
            looking = self.settings.use_image and "image" in doc.user_data
            names = (self.answers if looking else self.without_image).get(ent.text, ())
            for token in ent:
                token.ent_kb_id_ = names[0] if names else "NIL"
            shares = [1 / 2**n for n in range(1, len(names) + 1)]
            found = [[name, name, -1.0, share] for name, share in zip(names, shares, strict=True)]
            rows.append((ent.start_char, ent.end_char, *found))
        doc.user_data["gemel_candidates"] = rows
        return doc

    def demonstrations_for(self, doc: Doc, span: Span) -> list[SimpleNamespace]:
        shown = SimpleNamespace(text="<b>Mercury</b> rises", mention="Mercury", name="Mercury", kb_id="Mercury")
        return [shown] * self.settings.n_demonstrations

    def explain(self, span: Span) -> dict[str, Any]:
        candidates = candidate_rows(span.doc)[span.start_char, span.end_char]
        return {"candidates": candidates, "demonstrations": [], "prompt": span.doc.text}


def pipeline(linker: TableLinker, *, entities: Sequence[str] = ()) -> Language:
    """A blank pipeline with the table as its gemel_linker, behind a ruler for `entities` if there are any."""
    nlp = spacy.blank("en")
    if entities:
        ruler = nlp.add_pipe("entity_ruler")
        ruler.add_patterns([{"label": "ENT", "pattern": text} for text in entities])
    # the factory's own pipe needs models; only its name in the pipeline's meta is needed here
    nlp.add_pipe("sentencizer", name="gemel_linker")
    nlp._pipe_meta["gemel_linker"] = replace(nlp.get_pipe_meta("gemel_linker"), factory="gemel_linker")
    index = next(i for i, (name, _) in enumerate(nlp._components) if name == "gemel_linker")
    nlp._components[index] = ("gemel_linker", linker)
    return nlp
