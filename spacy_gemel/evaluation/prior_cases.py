"""Mentions of dev data with the language model's score and the prior of each candidate, kept apart."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from spacy_gemel.data.reader import make_example, read_docs
from spacy_gemel.evaluation.prior_weight import PriorCandidate, PriorCase
from spacy_gemel.kb.resolve import NIL, resolve_gold
from spacy_gemel.models.frozen import model_lock
from spacy_gemel.pipeline.loaded import entity_pipes, linker_name
from spacy_gemel.pipeline.mentions import mark_unreadable
from spacy_gemel.pipeline.scorer import check_images_read
from spacy_gemel.pipeline.user_data import has_unreadable_image

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

    from spacy_gemel.pipeline.gemel_linker import GemelLinker

_Place = tuple[int, int, int]  # doc, first and last character
_Found = tuple[list[PriorCandidate], str, bool]  # candidates, what the prior answers, whether it is a demonstration
_DOCS_AT_ONCE = 128


def collect_cases(
    nlp: "Language", data: Path, *, limit: int = 0, batch_size: int = _DOCS_AT_ONCE, progress: bool = True
) -> list[PriorCase]:
    """Link the gold mentions of a .spacy file, or a folder of them, once, whatever prior_weight the pipe has.

    Mentions whose gold is NIL, not annotated or not in the knowledge base are left out. limit: docs, 0 for all.
    Raises ValueError where there is no linker in the pipeline, no mention that can be used, and where the linker could
    read none of the images, as its scores would be those of the text alone; warns where it could not read some.
    """
    name = linker_name(nlp)
    pipe: Any = nlp.get_pipe(name)
    examples = [make_example(nlp, doc, gold_ents=True) for doc in islice(read_docs(data, nlp.vocab), limit or None)]
    # A NER would overwrite the gold mentions; of the others before it the linker may need sentences, or vectors.
    off = [*entity_pipes(nlp), *nlp.pipe_names[nlp.pipe_names.index(name) :]]
    cases: list[PriorCase] = []
    judged: list[Doc] = []
    with (
        nlp.select_pipes(disable=off),
        tqdm(total=len(examples), desc="link", unit=" docs", disable=not progress) as bar,
    ):
        docs = nlp.pipe((example.predicted for example in examples), batch_size=batch_size)
        for first in range(0, len(examples), batch_size):
            references = [example.reference for example in examples[first : first + batch_size]]
            linked = list(islice(docs, len(references)))
            for doc, own in zip(linked, _cases_by_doc(pipe, references, linked, first), strict=True):
                cases += own
                if any(case.candidates for case in own):  # what nobody answered says nothing of its image
                    judged.append(doc)
            bar.update(len(references))
    if not cases:
        raise ValueError(f"{data}: not one mention with a gold entity of the knowledge base in {len(examples)} docs")
    if pipe.settings.use_image:
        check_images_read(judged, name=name)
    return cases


def cases_of(pipe: "GemelLinker", references: "Sequence[Doc]", docs: "Sequence[Doc]", first: int) -> list[PriorCase]:
    """The cases of some gold docs, and of the same docs with the mentions to be linked.

    first: the number of the first, as docs without user_data["id"] are told by their number. A mention that the pipe
    does not link is answered by nobody.
    """
    return [case for own in _cases_by_doc(pipe, references, docs, first) for case in own]


def _cases_by_doc(
    pipe: "GemelLinker", references: "Sequence[Doc]", docs: "Sequence[Doc]", first: int
) -> list[list[PriorCase]]:
    with model_lock():
        found = _found(pipe, docs)
    cases: list[list[PriorCase]] = [[] for _ in references]
    for index, reference in enumerate(references):
        for gold in reference.ents:
            row = resolve_gold(pipe.kb, gold.kb_id_)
            if row is None:
                continue
            candidates, answer, shown = found.get((index, gold.start_char, gold.end_char), ([], NIL, False))
            doc = str(reference.user_data.get("id", first + index))
            unreadable = has_unreadable_image(docs[index])
            cases[index].append(PriorCase(doc, pipe.kb.entity(row).kb_id, candidates, answer, shown, unreadable))
    return cases


def _found(pipe: "GemelLinker", docs: "Sequence[Doc]") -> dict[_Place, _Found]:
    """What there is of each mention that the pipe links; its docs are marked as `predict` marks them."""
    pipe._forget_unreadable(docs)
    mentions = pipe._mentions(docs)
    if pipe.settings.use_image:
        mark_unreadable(docs, mentions)
    demonstrations = {(shown.mention, shown.text) for shown in pipe.store}
    found: dict[_Place, _Found] = {}
    for mention, names in zip(mentions, pipe.stages.find(mentions, pipe.settings, include_prior=True), strict=True):
        prior = pipe.stages.prior.of(mention.mention)
        span = docs[mention.doc][mention.start : mention.end]
        candidates = [
            PriorCandidate(kb_id, name.score, prior.get(kb_id, 0.0), name.searched)
            for name in names
            for kb_id, _ in name.entities
        ]
        shown = (mention.mention, mention.text) in demonstrations
        found[mention.doc, span.start_char, span.end_char] = candidates, next(iter(prior), NIL), shown
    return found
