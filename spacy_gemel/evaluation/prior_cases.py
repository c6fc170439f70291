"""Mentions of dev data with the language model's score and the prior of each candidate, kept apart."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from spacy_gemel.corpus.reader import make_example, read_docs
from spacy_gemel.evaluation.prior_weight import PriorCandidate, PriorCase
from spacy_gemel.frozen import turn
from spacy_gemel.golds import NIL, gold_row
from spacy_gemel.pipelines import entity_pipes, linker_name

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

    from spacy_gemel.component import GemelLinker

_Place = tuple[int, int, int]  # doc, first and last character
_Found = tuple[list[PriorCandidate], str, bool]  # candidates, what the prior answers, whether it is a demonstration
_DOCS_AT_ONCE = 128


def collect_cases(
    nlp: "Language", data: Path, *, limit: int = 0, batch_size: int = _DOCS_AT_ONCE, progress: bool = True
) -> list[PriorCase]:
    """Link the gold mentions of a .spacy file, or a folder of them, once, whatever prior_weight the pipe has.

    Mentions whose gold is NIL, not annotated or not in the knowledge base are left out. limit: docs, 0 for all.
    Raises ValueError where there is no linker in the pipeline, or no mention that can be used.
    """
    name = linker_name(nlp)
    pipe: Any = nlp.get_pipe(name)
    examples = [make_example(nlp, doc, gold_ents=True) for doc in islice(read_docs(data, nlp.vocab), limit or None)]
    # A NER would overwrite the gold mentions; of the others before it the linker may need sentences, or vectors.
    off = [*entity_pipes(nlp), *nlp.pipe_names[nlp.pipe_names.index(name) :]]
    cases: list[PriorCase] = []
    with (
        nlp.select_pipes(disable=off),
        tqdm(total=len(examples), desc="link", unit=" docs", disable=not progress) as bar,
    ):
        docs = nlp.pipe((example.predicted for example in examples), batch_size=batch_size)
        for first in range(0, len(examples), batch_size):
            references = [example.reference for example in examples[first : first + batch_size]]
            cases += cases_of(pipe, references, list(islice(docs, len(references))), first)
            bar.update(len(references))
    if not cases:
        raise ValueError(f"{data}: not one mention with a gold entity of the knowledge base in {len(examples)} docs")
    return cases


def cases_of(pipe: "GemelLinker", references: "Sequence[Doc]", docs: "Sequence[Doc]", first: int) -> list[PriorCase]:
    """The cases of some gold docs, and of the same docs with the mentions to be linked.

    first: the number of the first, as docs without user_data["id"] are told by their number. A mention that the pipe
    does not link is answered by nobody.
    """
    with turn():
        found = _found(pipe, docs)
    cases = []
    for place, reference in enumerate(references):
        for gold in reference.ents:
            row = gold_row(pipe.kb, gold.kb_id_)
            if row is None:
                continue
            candidates, answer, shown = found.get((place, gold.start_char, gold.end_char), ([], NIL, False))
            doc = str(reference.user_data.get("id", first + place))
            cases.append(PriorCase(doc, pipe.kb.entity(row).kb_id, candidates, answer, shown))
    return cases


def _found(pipe: "GemelLinker", docs: "Sequence[Doc]") -> dict[_Place, _Found]:
    """What there is of each mention that the pipe links."""
    mentions = pipe._mentions(docs)
    demonstrations = {(shown.mention, shown.text) for shown in pipe.store}
    found: dict[_Place, _Found] = {}
    for mention, names in zip(mentions, pipe.stages.find(mentions, with_known=True), strict=True):
        prior = pipe.stages.prior.prior.of(mention.mention)
        span = docs[mention.doc][mention.start : mention.end]
        candidates = [
            PriorCandidate(kb_id, name.score, prior.get(kb_id, 0.0), name.searched)
            for name in names
            for kb_id, _ in name.entities
        ]
        shown = (mention.mention, mention.text) in demonstrations
        found[mention.doc, span.start_char, span.end_char] = candidates, next(iter(prior), NIL), shown
    return found
