"""What a conversion read, kept and left out, by reason."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from spacy_gemel.data.datasets.alignment import PART_OF_WORD, VERBATIM
from spacy_gemel.data.datasets.named import NOT_FOUND
from spacy_gemel.data.records import GIVEN, Mention, Problem, Record

_LISTED = 100
_CONTEXT = 20


@dataclass(slots=True)
class ConvertReport:
    """What was read, kept and left out, by reason; `listed` holds the first hundred problems in full.

    doubtful: mentions that were found only inside a longer word, the first hundred. stopped: the error that ended the
    conversion before OUT was written, or None.
    """

    source: str
    rows_read: int = 0
    rows_kept: int = 0
    docs: int = 0
    docs_for_overlaps: int = 0
    docs_not_annotated: int = 0
    mentions_kept: int = 0
    mentions_merged: int = 0
    mentions_widened: int = 0
    mentions_nil: int = 0
    mentions_unannotated: int = 0
    images: int = 0
    images_missing: int = 0
    image_urls: int = 0
    image_urls_alone: int = 0
    features: int = 0
    rows_dropped: Counter[str] = field(default_factory=Counter)
    mentions_dropped: Counter[str] = field(default_factory=Counter)
    features_missing: Counter[str] = field(default_factory=Counter)
    file_damage: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    listed: list[str] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)
    stopped: str | None = None

    def add(self, problem: Problem) -> None:
        """Count a problem, and list it while there is room."""
        if problem.what == "row":
            self.rows_read += problem.rows
        by_kind = {"row": self.rows_dropped, "features": self.features_missing, "file": self.file_damage}
        by_kind.get(problem.what, self.mentions_dropped)[problem.reason] += problem.rows
        if len(self.listed) < _LISTED:
            self.listed.append(str(problem))

    def add_record(self, record: Record, *, image_is_there: bool) -> None:
        """Count a record that was read, before its mentions are set."""
        self.rows_read += record.rows
        self.rows_kept += record.rows
        self.docs += 1
        self.docs_for_overlaps += record.rows == 0
        self.docs_not_annotated += record.mentions is None
        self.mentions_merged += record.merged
        self.rules.update(mention.rule for mention in record.mentions or () if mention.rule != GIVEN)
        for mention in record.mentions or ():
            if mention.rule == PART_OF_WORD and len(self.doubtful) < _LISTED:
                self.doubtful.append(f"{record.where}: {_in_context(record.text, mention)}")
        self.images += record.image is not None
        self.images_missing += record.image is not None and not image_is_there
        self.image_urls += record.image_url is not None
        self.image_urls_alone += record.image_url is not None and record.image is None
        self.features += record.image_features is not None

    @property
    def fuzzy_alignment(self) -> dict[str, int]:
        """Mentions that are not verbatim in their text, by the rule they were found by."""
        return {rule: n for rule, n in sorted(self.rules.items()) if rule not in (VERBATIM, PART_OF_WORD)}

    @property
    def not_found(self) -> dict[str, int]:
        """Mentions that have no place in their text, by the reason."""
        there = sorted(self.mentions_dropped.items())
        return {reason.removeprefix(NOT_FOUND): n for reason, n in there if reason.startswith(NOT_FOUND)}

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for OUT.report.json."""
        return {
            "source": self.source,
            "stopped": self.stopped,
            "rows": {
                "read": self.rows_read,
                "kept": self.rows_kept,
                "dropped": dict(sorted(self.rows_dropped.items())),
            },
            "file_damage": dict(sorted(self.file_damage.items())),
            "docs": {
                "written": self.docs if self.stopped is None else 0,
                "for_overlapping_mentions": self.docs_for_overlaps,
            },
            "docs_not_annotated": self.docs_not_annotated,
            "mentions": {
                "read": self.mentions_kept + self.mentions_merged + self.mentions_dropped.total(),
                "kept": self.mentions_kept,
                "dropped": dict(sorted(self.mentions_dropped.items())),
                "widened_to_tokens": self.mentions_widened,
                "nil": self.mentions_nil,
                "unannotated": self.mentions_unannotated,
            },
            "alignment": {
                "by_given_offsets": self.mentions_kept - self.rules.total(),
                "verbatim": self.rules[VERBATIM],
                "part_of_a_longer_word": self.rules[PART_OF_WORD],
                "tolerant": self.fuzzy_alignment,
                "not_found": self.not_found,
                "same_mention_listed_again": self.mentions_merged,
            },
            "images": {"named": self.images, "missing": self.images_missing},
            "image_urls": self.image_urls,
            "image_urls_without_a_file": self.image_urls_alone,
            "features": {"found": self.features, "missing": dict(sorted(self.features_missing.items()))},
            "found_inside_a_longer_word": self.doubtful,
            "problems": self.listed,
        }

    def summary(self) -> str:
        """A few lines for a person."""
        lines = [
            f"rows: {self.rows_read} read, {self.rows_kept} kept, {self.rows_dropped.total()} left out",
            f"mentions: {self.mentions_kept} kept, {self.mentions_dropped.total()} left out (of the kept: "
            f"{self.mentions_nil} NIL, {self.mentions_unannotated} without an entity, "
            f"{self.mentions_widened} widened to whole tokens)",
            f"images: {self.images} named, {self.images_missing} not found",
        ]
        if self.docs_not_annotated:
            lines.append(f"docs: {self.docs_not_annotated} have no field mentions, which is not the same as none")
        if self.rules:
            lines.append(
                f"places: {self.rules[VERBATIM]} mentions verbatim, {sum(self.fuzzy_alignment.values())} tolerantly, "
                f"{sum(self.not_found.values())} not found, {self.mentions_merged} listed again"
            )
            if self.rules[PART_OF_WORD]:
                lines.append(f"  {self.rules[PART_OF_WORD]} x found only inside a longer word: the report lists them")
            lines += [f"  {n} x found by: {rule}" for rule, n in self.fuzzy_alignment.items()]
        if self.docs_for_overlaps:
            further = "further doc was" if self.docs_for_overlaps == 1 else "further docs were"
            lines.append(f"docs: {self.docs}; {self.docs_for_overlaps} {further} made for mentions that overlap others")
        if self.features or self.features_missing:
            lines.append(f"features: {self.features} found, {self.features_missing.total()} missing")
            lines += [f"  {n} x {reason}" for reason, n in sorted(self.features_missing.items())]
        if self.image_urls_alone:
            lines.append(
                f"  {self.image_urls_alone} docs know only their image's URL: fetch-images downloads them to a folder, "
                "which --images takes"
            )
        lines += [f"  {n} x file: {reason}" for reason, n in sorted(self.file_damage.items())]
        lines += [f"  {n} x row: {reason}" for reason, n in sorted(self.rows_dropped.items())]
        lines += [f"  {n} x mention: {reason}" for reason, n in sorted(self.mentions_dropped.items())]
        lines += [f"  {problem}" for problem in self.listed[:5]]
        return "\n".join(lines)


def _in_context(text: str, mention: Mention) -> str:
    """The mention in brackets, and what stands beside it."""
    before = text[max(0, mention.start - _CONTEXT) : mention.start]
    behind = text[mention.end : mention.end + _CONTEXT]
    return f"{before}[{text[mention.start : mention.end]}]{behind}"
