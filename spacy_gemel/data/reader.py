"""The corpus reader that keeps the image.

spaCy's own reader makes the predicted doc from the text alone, so a linker would be trained and scored
without its image, and, alone in its pipeline, without a single mention.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example
from spacy.util import registry
from spacy.vocab import Vocab

from spacy_gemel.pipeline.user_data import IMAGE_KEYS
from spacy_gemel.utils.files import resolve

logger = logging.getLogger(__name__)

CARRIED = ("id", "image_url", *IMAGE_KEYS)
"""What goes over from the gold doc's user_data to the predicted one's."""


@registry.readers("spacy_gemel.MultimodalCorpus.v1")  # type: ignore[untyped-decorator]
def multimodal_corpus(
    path: str | Path | None,
    gold_ents: bool = False,
    max_length: int = 0,
    limit: int = 0,
) -> Callable[[Language], Iterable[Example]]:
    """Read docs with images from a .spacy file, or a folder of them.

    path: resolved against the config's folder, then the working folder. gold_ents: put the gold spans,
    without their entities, on the predicted doc; what a pipeline without a NER needs, and what would leak
    into one with a NER. max_length: leave out docs of more tokens than this, 0 for no limit. limit: read at
    most so many docs, 0 for all.
    Raises ValueError without a path; what is wrong with the path is said when the reader is called.
    """
    if path is None or not str(path):
        raise ValueError("the corpus reader needs a path: set paths.train and paths.dev in the config")
    return MultimodalCorpus(resolve(str(path)), gold_ents=gold_ents, max_length=max_length, limit=limit)


class MultimodalCorpus:
    """Callable that yields Examples in the order of the file (spaCy's training loop does the shuffling)."""

    def __init__(self, path: Path, *, gold_ents: bool = False, max_length: int = 0, limit: int = 0) -> None:
        self.path = path
        self.gold_ents = gold_ents
        self.max_length = max_length
        self.limit = limit

    def __call__(self, nlp: Language) -> Iterator[Example]:
        """Yield the examples. Raises ValueError where there is no file, or no doc within the limits in it."""
        yielded = too_long = 0
        for reference in read_docs(self.path, nlp.vocab):
            if self.max_length and len(reference) > self.max_length:
                too_long += 1
                continue
            yield make_example(nlp, reference, gold_ents=self.gold_ents)
            yielded += 1
            if yielded == self.limit:
                break
        if too_long:
            logger.info("%s: left out %d docs of more than %d tokens", self.path, too_long, self.max_length)
        if not yielded:
            raise ValueError(f"{self.path}: every doc has more than max_length = {self.max_length} tokens")


def read_docs(path: Path, vocab: Vocab) -> Iterator[Doc]:
    """Yield the non-empty docs of a .spacy file, or of a folder of them in the order of their names.

    A relative image path becomes an absolute one, from the folder of the file it stands in. Raises
    ValueError where there is nothing to read: no such path, no .spacy file, a file that is no DocBin, not
    one doc.
    """
    read = 0
    for file in corpus_files(path):
        try:
            docs = DocBin().from_disk(file)
        # zlib, msgpack and numpy each have their own error for bytes that are not theirs
        except Exception as error:
            raise ValueError(f"{file}: no DocBin can be read from it; write it again ({error})") from error
        folder = file.parent.absolute()
        for doc in docs.get_docs(vocab):
            image = doc.user_data.get("image")
            if isinstance(image, str):
                doc.user_data["image"] = os.path.normpath(folder / image)
            if len(doc):
                yield doc
                read += 1
    if not read:
        raise ValueError(f"{path}: not a single doc in it; write it again with python -m spacy_gemel convert")


def corpus_files(path: Path) -> list[Path]:
    """The .spacy files at `path`, sorted; ValueError where there are none."""
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder; make it with python -m spacy_gemel convert")
    if path.is_file():
        if path.suffix != ".spacy":
            raise ValueError(f"{path}: not a .spacy file; make one with python -m spacy_gemel convert")
        return [path]
    files = sorted(path.rglob("*.spacy"))
    if not files:
        raise ValueError(f"{path}: no .spacy file in this folder; python -m spacy_gemel convert makes one")
    return files


def make_example(nlp: Language, reference: Doc, *, gold_ents: bool) -> Example:
    """Pair a gold doc with a doc to predict on: it gets the image, and with `gold_ents` the spans, not the
    ids.
    """
    predicted = _same_tokens(nlp, reference) if reference.has_unknown_spaces else nlp.make_doc(reference.text)
    if gold_ents:
        spans = _spans_on(predicted, reference)
        if spans is None:
            # another tokeniser than the corpus's: keep the corpus's tokens rather than lose a gold span
            predicted = _same_tokens(nlp, reference)
            spans = _spans_on(predicted, reference) or []
        predicted.set_ents(spans)
    for key in CARRIED:
        if key in reference.user_data:
            predicted.user_data[key] = reference.user_data[key]
    return Example(predicted, reference)


def _same_tokens(nlp: Language, reference: Doc) -> Doc:
    spaces = [bool(token.whitespace_) for token in reference]
    return Doc(nlp.vocab, words=[token.text for token in reference], spaces=spaces)


def _spans_on(doc: Doc, reference: Doc) -> list[Span] | None:
    """The reference's entities, without ids, on `doc`; None where a token boundary is in the way."""
    spans = []
    for ent in reference.ents:
        span = doc.char_span(ent.start_char, ent.end_char, label=ent.label_)
        if span is None:
            return None
        spans.append(span)
    return spans
