"""Distant supervision: linked docs out of plain text, by the names and aliases that only one entity has.

The idea of KRISSBERT (Zhang et al. 2022, "Knowledge-Rich Self-Supervision for Biomedical Entity Linking"): if a text
has a name that the knowledge base gives to one entity only, it most likely means that entity. Nobody has to label it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import lru_cache
from operator import attrgetter
from pathlib import Path

from spacy.tokens import Doc, DocBin, Token
from tqdm import tqdm

from spacy_gemel.data.jsonl import read_jsonl
from spacy_gemel.data.reader import blank_pipeline, doc_from_record
from spacy_gemel.data.records import MentionSpan, Problem, Record
from spacy_gemel.kb.index import hash_text, surface_key
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.utils.files import write_whole
from spacy_gemel.utils.messages import percent

_MAX_TOKENS = 8  # of a surface that is looked up
_MIN_CHARACTERS = 3
_CACHED_SURFACES = 2**17
_QUALIFIED = re.compile(r"(.+\S) ?\([^()]*\)")
_WORD = re.compile(r"[^\W\d_]+")
_RULE = "a name of one entity only"
_ONLY_URL = "it is a URL: fetch-images downloads it; give the file's path instead"


@dataclass(frozen=True, slots=True)
class WeakMention:
    """A span of a text, in characters, and the row of the one entity that has it as its name or as an alias."""

    start: int
    end: int
    row: int
    by_alias: bool


class UnambiguousNames:
    """Finds the names and aliases in docs that only one entity of a knowledge base has.

    A surface has at most 8 tokens, at least 3 characters, and a letter. In the text it has a capital letter or a digit,
    and so has neither neighbour: "Palmer" in "David Palmer" is no mention. The first word of a sentence counts as in
    lower case if it occurs so elsewhere. "Turkey" is ambiguous if there is a "Turkey (bird)". An alias that is one
    word of the name is left out ("Chinese" for "Chinese language"): no knowledge base lists all who share it.

    Args:
        kb: the knowledge base. All its names are read once, here.
        lower_words: words that occur in lower case, see `lower_case_words`.
        progress: show a progress bar.
    """

    def __init__(self, kb: KnowledgeBase, lower_words: set[str], *, progress: bool = False) -> None:
        self._kb, self._lower_words = kb, lower_words
        self._qualified = _count_qualified(kb, progress)
        self._rows_by_surface = lru_cache(maxsize=_CACHED_SURFACES)(kb.rows_by_surface)

    def __call__(self, doc: Doc) -> list[WeakMention]:
        """The mentions of a doc with sentence boundaries: from left to right the longest, which do not overlap."""
        tokens = [token for token in doc if not token.is_space]
        edges = [(token.idx, token.idx + len(token)) for token in tokens]
        name_like = self._name_like(tokens)
        mentions: list[WeakMention] = []
        start = 0
        while start < len(tokens):
            end = self._longest(doc.text, edges, start, name_like)
            if end is not None and not any([*name_like[max(start - 1, 0) : start], *name_like[end : end + 1]]):
                mention = self._unambiguous(doc.text, edges[start][0], edges[end - 1][1])
                mentions += [] if mention is None else [mention]
            start = end or start + 1
        return mentions

    def _name_like(self, tokens: list[Token]) -> list[bool]:
        """Whether each token has a capital letter or a digit that the beginning of a sentence does not explain."""
        flags: list[bool] = []
        is_first = False
        for token in tokens:
            is_first = is_first or bool(token.is_sent_start)
            is_common = is_first and token.is_title and token.lower_ in self._lower_words
            flags.append(not is_common and (token.text != token.lower_ or any(map(str.isdigit, token.text))))
            is_first = is_first and token.is_punct  # a quotation mark before it
        return flags

    def _longest(self, text: str, edges: list[tuple[int, int]], start: int, name_like: list[bool]) -> int | None:
        """The end of the longest name or alias, of however many entities, that begins with a token; None without one.

        "New York" in "New York City" is no mention, also if several entities are called "New York City".
        """
        longest = min(start + _MAX_TOKENS, len(edges))
        shortest = next((end for end in range(start + 1, longest + 1) if name_like[end - 1]), longest + 1)
        for end in range(longest, shortest - 1, -1):
            if any(self._rows_by_surface(text[edges[start][0] : edges[end - 1][1]])):
                return end
        return None

    def _unambiguous(self, text: str, start: int, end: int) -> WeakMention | None:
        surface = text[start:end]
        named, aliased = self._rows_by_surface(surface)
        if len(surface) < _MIN_CHARACTERS or not _WORD.search(surface) or len(named) + len(aliased) != 1:
            return None
        [row] = [*named, *aliased]
        name = self._kb.entity(row).name
        n_sharing = self._qualified[surface_key(surface)] - (_without_qualifier(name) == surface_key(surface))
        words = _WORD.findall(name.lower())
        is_part = bool(aliased) and len(words) > 1 and surface.lower() in words
        if n_sharing or is_part or not self._kb.is_in_trie(row):
            return None
        return WeakMention(start, end, row, by_alias=not named)


def lower_case_words(texts: Iterable[str]) -> set[str]:
    """The words that occur in lower case in some texts."""
    return {word for text in texts for word in _WORD.findall(text) if word.islower()}


def _count_qualified(kb: KnowledgeBase, progress: bool) -> Counter[str]:
    """How many entities have a name such as "Turkey (bird)", by the key of "Turkey"."""
    batches = tqdm(range(kb.table.n_batches), desc=f"{kb.path.name}: reading names", disable=not progress)
    names = (name for index in batches for name in kb.table.batch(index).column("name").to_pylist())
    return Counter(key for name in names if (key := _without_qualifier(name)))


def _without_qualifier(name: str) -> str | None:
    """The key of a name without the words in brackets at its end; None if there are none."""
    match = _QUALIFIED.fullmatch(name)
    return surface_key(match[1]) if match else None


@dataclass(frozen=True, slots=True)
class SetCounts:
    """The size of a set of docs. by_alias: the mentions that are an alias of their entity, not its name."""

    docs: int
    mentions: int
    entities: int
    by_alias: int

    def __str__(self) -> str:
        share = percent(self.by_alias / self.mentions)
        return f"{self.docs} docs, {self.mentions} mentions of {self.entities} entities, {share} % by an alias"


@dataclass(slots=True)
class WeakLabelReport:
    """What `make_demonstrations` read, found and wrote."""

    texts: int = 0
    mentions: int = 0  # of all texts, before any limit
    problems: list[Problem] = field(default_factory=list)
    sets: dict[Path, SetCounts] = field(default_factory=dict)

    def summary(self) -> str:
        """A few lines for a person."""
        bad_rows = sum(problem.what == "row" for problem in self.problems)
        lines = [f"{path}: {counts}" for path, counts in self.sets.items()]
        return "\n".join([*lines, f"{self.texts} texts read, {bad_rows} bad rows, {self.mentions} mentions found"])


@dataclass(frozen=True, slots=True, eq=False)
class _Occurrence:
    """A mention with its record and the record's number in the file."""

    mention: WeakMention
    record: Record
    number: int


class _Selection:
    """At most `limit` mentions of each entity, each in another text: by an alias first, then in the file's order."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._by_row: dict[int, list[_Occurrence]] = {}

    def add(self, occurrence: _Occurrence) -> None:
        """Select a mention, perhaps in place of another one."""
        selected = self._by_row.setdefault(occurrence.mention.row, [])
        if all(other.record.text != occurrence.record.text for other in selected):
            selected.append(occurrence)
            selected.sort(key=lambda other: not other.mention.by_alias)  # stable
            del selected[self._limit :]

    def records(self, kb: KnowledgeBase) -> list[Record]:
        """Each text once, with its mentions, in the file's order."""
        by_text: dict[str, tuple[Record, list[WeakMention]]] = {}
        for occurrence in sorted(self._all(), key=attrgetter("number")):
            by_text.setdefault(occurrence.record.text, (occurrence.record, []))[1].append(occurrence.mention)
        return [
            replace(record, mentions=tuple(_labelled(mention, kb) for mention in mentions))
            for record, mentions in by_text.values()
        ]

    def count(self) -> SetCounts:
        """The size of what is selected."""
        occurrences = self._all()
        texts = {occurrence.record.text for occurrence in occurrences}
        by_alias = sum(occurrence.mention.by_alias for occurrence in occurrences)
        return SetCounts(len(texts), len(occurrences), len(self._by_row), by_alias)

    def _all(self) -> list[_Occurrence]:
        return [occurrence for selected in self._by_row.values() for occurrence in selected]


def _labelled(mention: WeakMention, kb: KnowledgeBase) -> MentionSpan:
    return MentionSpan(mention.start, mention.end, kb.entity(mention.row).kb_id, rule=_RULE)


def make_demonstrations(
    source: Path,
    kb: KnowledgeBase,
    out: Path,
    *,
    dev: Path | None = None,
    dev_share: float = 0.2,
    per_entity: int = 5,
    lang: str = "en",
    progress: bool = True,
) -> WeakLabelReport:
    """Write docs whose entities are the unambiguous names in the texts of a file.

    Args:
        source: JSON lines with a text, and optionally an id and an image; mentions in it are not used. Bad rows are
            left out and reported. The file is read twice; the memory holds what is written.
        kb: the knowledge base.
        out: DocBin to write: demonstrations, or training data.
        dev: DocBin to write of other texts: of `dev_share` of all texts, chosen by their hashes.
        dev_share: from 0 to 1.
        per_entity: at most so many mentions of each entity in a DocBin, each in another text. Those by an alias go
            first, since a name as mention only teaches a linker to copy.
        lang: spaCy language whose tokenizer to use.
        progress: show progress bars.

    Returns:
        What was read and written.

    Raises:
        ValueError: for wrong arguments, and if one of the files would have no doc; then neither is written.
        OSError: for the files.
        KBError: if the knowledge base is damaged.
    """
    _check_paths(source, out, dev)
    nlp = blank_pipeline(lang)
    nlp.add_pipe("sentencizer")
    texts = (record.text for record in _records(source, "reading words", progress, []))
    find_names = UnambiguousNames(kb, lower_case_words(texts), progress=progress)
    selections = {path: _Selection(per_entity) for path in (out, dev) if path is not None}
    report = WeakLabelReport()
    for number, record in enumerate(_records(source, "finding names", progress, report.problems)):
        mentions = find_names(nlp(record.text))
        report.texts += 1
        report.mentions += len(mentions)
        path = dev if dev is not None and _hash_share(record.text) < dev_share else out
        for mention in mentions:
            selections[path].add(_Occurrence(mention, record, number))
    with ExitStack() as stack:  # both files or neither
        for path, selection in selections.items():
            counts = selection.count()
            if not counts.mentions:
                raise ValueError(_nothing_to_write(source, path, report))
            report.sets[path] = counts
            docs = DocBin(store_user_data=True)
            for record in selection.records(kb):
                docs.add(doc_from_record(record, nlp.make_doc, record.image_path_from(path.parent))[0])
            stack.enter_context(write_whole(path)).write_bytes(docs.to_bytes())
    return report


def _check_paths(source: Path, out: Path, dev: Path | None) -> None:
    for path in (out, dev):
        if path is not None and path.suffix != ".spacy":
            raise ValueError(f"{path}: the output must end in .spacy, because spaCy finds its corpora by that")
    if dev is not None and dev.resolve() == out.resolve():
        raise ValueError(f"{dev}: both outputs have this path; give --dev another one")
    if not source.is_file():
        raise ValueError(f"{source}: no such file; it must have one text per line, as JSON")


def _nothing_to_write(source: Path, path: Path, report: WeakLabelReport) -> str:
    first = f" (the first problem: {report.problems[0]})" if report.problems else ""
    return (
        f"{path}: nothing was written, as none of the texts for it has a name that only one entity of the knowledge "
        f"base has ({report.texts} texts in {source}){first}. Give more texts, or another knowledge base"
    )


def _records(source: Path, action: str, progress: bool, problems: list[Problem]) -> Iterator[Record]:
    """The records of a file, without their mentions; what is wrong with a row or its image goes to `problems`."""
    for row in tqdm(read_jsonl(source), desc=f"{source.name}: {action}", unit=" rows", disable=not progress):
        if isinstance(row, Record):
            if row.image_url is not None:
                problems.append(Problem(row.location, "image", _ONLY_URL, row.image_url))
            yield replace(row, mentions=None)
        elif row.what == "row":  # mentions are not read
            problems.append(row)


def _hash_share(text: str) -> float:
    """A text's place between 0 and 1 by its hash, the same on every machine; blanks do not count."""
    return hash_text(" ".join(text.split())) / 2**64
