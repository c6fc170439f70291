"""Docs with images: made of a record, and read from a corpus by a reader that keeps the image.

spaCy's own reader makes the predicted doc from the text alone, so a linker would be trained and scored without its
image, and without any mention if no NER stands before it.
"""

import logging
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import spacy
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example
from spacy.util import registry
from spacy.vocab import Vocab

from spacy_gemel.data.records import MentionSpan, Problem, Record
from spacy_gemel.pipeline.user_data import IMAGE_KEYS
from spacy_gemel.utils.files import resolve, unpacked_limit, visible_files

logger = logging.getLogger(__name__)

_COPIED_KEYS = ("id", "image_url", *IMAGE_KEYS)  # of user_data, to the predicted doc


@registry.readers("spacy_gemel.MultimodalCorpus.v1")  # type: ignore[untyped-decorator]
def multimodal_corpus(
    path: str | Path | None, gold_ents: bool = False, max_length: int = 0, limit: int = 0
) -> Callable[[Language], Iterable[Example]]:
    """Read docs with images from a .spacy file, or a folder of them.

    Args:
        path: Resolved against the config's folder, then the working folder; checked when the reader is called.
        gold_ents: Put the gold spans, without their ids, on the predicted doc. A pipeline without a NER needs this; a
            pipeline with a NER must not see them.
        max_length: Leave out docs with more tokens; 0 for no limit.
        limit: Read at most so many docs; 0 for all.
    """
    if path is None or not str(path):
        raise ValueError("the corpus reader needs a path: set paths.train and paths.dev in the config")
    return MultimodalCorpus(resolve(str(path)), gold_ents=gold_ents, max_length=max_length, limit=limit)


@dataclass(frozen=True)
class MultimodalCorpus:
    """Callable that yields Examples in the order of the file (spaCy's training loop shuffles them)."""

    path: Path
    gold_ents: bool = False
    max_length: int = 0
    limit: int = 0

    def __call__(self, nlp: Language) -> Iterator[Example]:
        """Yield the examples. Raises ValueError if the path holds no doc, or none within `max_length`."""
        count = too_long = 0
        for reference in read_docs(self.path, nlp.vocab):
            if self.max_length and len(reference) > self.max_length:
                too_long += 1
                continue
            yield make_example(nlp, reference, gold_ents=self.gold_ents)
            count += 1
            if count == self.limit:
                break
        if too_long:
            logger.info("%s: left out %d docs with more than %d tokens", self.path, too_long, self.max_length)
        if not count:
            raise ValueError(f"{self.path}: every doc has more than max_length = {self.max_length} tokens")


def read_docs(path: Path, vocab: Vocab) -> Iterator[Doc]:
    """Yield the non-empty docs of a .spacy file, or of the .spacy files in a folder, sorted by name, no hidden ones.

    A relative image path becomes absolute, from the folder of its .spacy file. Raises ValueError if the path does not
    exist, holds no .spacy file or no doc, or if a file is not a DocBin.
    """
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder; make it with python -m spacy_gemel convert")
    if path.is_file() and path.suffix != ".spacy":
        raise ValueError(f"{path}: not a .spacy file; make one with python -m spacy_gemel convert")
    files = [path] if path.is_file() else visible_files(path, (".spacy",))
    if not files:
        raise ValueError(f"{path}: no .spacy file in this folder; python -m spacy_gemel convert makes one")
    is_empty = True
    for file in files:
        folder = file.parent.resolve()  # as `Record.image_path_from`
        for doc in _unpack(file, vocab):
            image = doc.user_data.get("image")
            if isinstance(image, str):
                doc.user_data["image"] = os.path.normpath(folder / image)
            if len(doc):
                yield doc
                is_empty = False
    if is_empty:
        raise ValueError(f"{path}: it holds no docs; write it again with python -m spacy_gemel convert")


def _unpack(file: Path, vocab: Vocab) -> Iterator[Doc]:
    try:
        yield from DocBin().from_bytes(_checked(file.read_bytes())).get_docs(vocab)
    # zlib, msgpack, numpy and spaCy each raise their own error for bytes that are not theirs, some at a later doc
    except Exception as error:
        raise ValueError(f"{file}: it cannot be read as a DocBin; write it again ({error})") from error


def _checked(packed: bytes) -> bytes:
    """The bytes of a DocBin, which spaCy unpacks whatever they grow to. Raises ValueError if that is too much."""
    unpacker = zlib.decompressobj()
    content = unpacker.decompress(packed, unpacked_limit(len(packed)))
    if unpacker.unconsumed_tail:
        raise ValueError(f"its {len(packed)} bytes unpack to more than {len(content)}")
    return zlib.compress(content, level=0)


def make_example(nlp: Language, reference: Doc, *, gold_ents: bool) -> Example:
    """Pair a gold doc with a doc to predict on, which gets the image and, with `gold_ents`, the spans without ids."""
    # nlp.max_length is refused by the tokenizer, for the sake of parsers; the corpus's tokens are there already
    predicted = nlp.make_doc(reference.text) if len(reference.text) <= nlp.max_length else None
    edges = [(ent.start_char, ent.end_char) for ent in reference.ents] if gold_ents else []
    # if the corpus has another tokeniser, keep its tokens rather than lose a gold span
    if predicted is None or reference.has_unknown_spaces or any(predicted.char_span(*edge) is None for edge in edges):
        words, spaces = [token.text for token in reference], [bool(token.whitespace_) for token in reference]
        predicted = Doc(nlp.vocab, words=words, spaces=spaces)
    if gold_ents:
        spans = [predicted.char_span(ent.start_char, ent.end_char, label=ent.label_) for ent in reference.ents]
        predicted.set_ents([span for span in spans if span is not None])
    for key in _COPIED_KEYS:
        if key in reference.user_data:
            predicted.user_data[key] = reference.user_data[key]
    return Example(predicted, reference)


def blank_pipeline(lang: str) -> Language:
    """A pipeline of a language's tokenizer alone. Raises ValueError if spaCy does not have the language."""
    try:
        nlp = spacy.blank(lang)
    except ImportError as error:
        raise ValueError(f"spaCy has no language {lang!r}: give its code, such as en ({error})") from error
    nlp.max_length = 10**9  # which guards parsers and NERs against long texts; the tokenizer needs no guard
    return nlp


def doc_from_record(
    record: Record, make_doc: Callable[[str], Doc], image: str | None
) -> tuple[Doc, list[Problem], int]:
    """Tokenise a record and set its mentions as entities.

    A mention that starts or ends inside a token is widened to whole tokens, never dropped because of the tokeniser; a
    token that two mentions share is cut between them. The mentions must not overlap: see `split_overlaps`.

    `image` is the path to store, if the record has no picture of its own. Returns the doc, the mentions that were left
    out, and the number of widened ones.
    """
    mentions = record.mentions or ()
    doc = _cut_shared_tokens(make_doc(record.text), mentions)
    features = record.image_features
    image_or_bytes = image if record.picture is None else record.picture
    user_data = {"id": record.id, "image": image_or_bytes, "image_url": record.image_url, "image_features": features}
    doc.user_data.update((key, value) for key, value in user_data.items() if value is not None)
    problems: list[Problem] = []
    spans: list[Span] = []
    widened = 0
    for mention in mentions:
        start, end = mention.start, mention.end
        span = doc.char_span(start, end, label=mention.label, kb_id=mention.kb_id, alignment_mode="expand")
        surface = record.text[start:end]
        if span is None or len(span) == 0:
            problems.append(Problem(record.location, "mention", "no token covers the mention", repr(surface)))
        else:
            spans.append(span)
            widened += span.text != surface
    if record.mentions is not None:  # setting none would tell a NER that there are none
        doc.set_ents(spans)
    return doc, problems, widened


def _cut_shared_tokens(doc: Doc, mentions: Sequence[MentionSpan]) -> Doc:
    """The same text, with each token cut that holds the end of one mention and the beginning of the next."""
    cuts = set()
    for first, second in pairwise(sorted(mentions, key=lambda mention: mention.start)):
        whole = doc.char_span(first.end - 1, second.start + 1, alignment_mode="expand")
        if whole is not None and len(whole) == 1:
            cuts |= {first.end, second.start}
    if not cuts:
        return doc
    words: list[str] = []
    spaces: list[bool] = []
    for token in doc:
        start, end = token.idx, token.idx + len(token)
        edges = [start, *sorted(cut for cut in cuts if start < cut < end), end]
        words += [doc.text[begin:stop] for begin, stop in pairwise(edges)]
        spaces += [*[False] * (len(edges) - 2), bool(token.whitespace_)]
    return Doc(doc.vocab, words=words, spaces=spaces)
