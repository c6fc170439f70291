"""What a conversion read, kept and left out, by reason."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from spacy_gemel.corpus.alignment import VERBATIM
from spacy_gemel.corpus.named import NOT_FOUND
from spacy_gemel.corpus.records import GIVEN, Problem, Record

_LISTED = 100


@dataclass(slots=True)
class ConvertReport:
    """What was read, kept and left out, by reason; `listed` holds the first hundred problems in full."""

    source: str
    rows_read: int = 0
    rows_kept: int = 0
    docs: int = 0
    docs_for_overlaps: int = 0
    mentions_kept: int = 0
    mentions_merged: int = 0
    mentions_widened: int = 0
    mentions_nil: int = 0
    mentions_unannotated: int = 0
    images: int = 0
    images_missing: int = 0
    image_urls: int = 0
    features: int = 0
    rows_dropped: Counter[str] = field(default_factory=Counter)
    mentions_dropped: Counter[str] = field(default_factory=Counter)
    features_missing: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    listed: list[str] = field(default_factory=list)

    def add(self, problem: Problem) -> None:
        """Count a problem, and list it while there is room."""
        if problem.what == "row":
            self.rows_read += problem.rows
        by_kind = {"row": self.rows_dropped, "features": self.features_missing}
        by_kind.get(problem.what, self.mentions_dropped)[problem.reason] += problem.rows
        if len(self.listed) < _LISTED:
            self.listed.append(str(problem))

    def add_record(self, record: Record, *, image_is_there: bool) -> None:
        """Count a record that was read, before its mentions are set."""
        self.rows_read += record.rows
        self.rows_kept += record.rows
        self.docs += 1
        self.docs_for_overlaps += record.rows == 0
        self.mentions_merged += record.merged
        self.rules.update(mention.rule for mention in record.mentions or () if mention.rule != GIVEN)
        self.images += record.image is not None
        self.images_missing += record.image is not None and not image_is_there
        self.image_urls += record.image_url is not None
        self.features += record.image_features is not None

    @property
    def tolerant(self) -> dict[str, int]:
        """Mentions that are not verbatim in their text, by the rule they were found by."""
        return {rule: n for rule, n in sorted(self.rules.items()) if rule != VERBATIM}

    @property
    def not_found(self) -> dict[str, int]:
        """Mentions that have no place in their text, by the reason."""
        there = sorted(self.mentions_dropped.items())
        return {reason.removeprefix(NOT_FOUND): n for reason, n in there if reason.startswith(NOT_FOUND)}

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for OUT.report.json."""
        return {
            "source": self.source,
            "rows": {
                "read": self.rows_read,
                "kept": self.rows_kept,
                "dropped": dict(sorted(self.rows_dropped.items())),
            },
            "docs": {"written": self.docs, "for_overlapping_mentions": self.docs_for_overlaps},
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
                "tolerant": self.tolerant,
                "not_found": self.not_found,
                "same_mention_listed_again": self.mentions_merged,
            },
            "images": {"named": self.images, "missing": self.images_missing},
            "image_urls": self.image_urls,
            "features": {"found": self.features, "missing": dict(sorted(self.features_missing.items()))},
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
        if self.rules:
            lines.append(
                f"places: {self.rules[VERBATIM]} mentions verbatim, {sum(self.tolerant.values())} tolerantly, "
                f"{sum(self.not_found.values())} not found, {self.mentions_merged} listed again"
            )
            lines += [f"  {n} x found by: {rule}" for rule, n in self.tolerant.items()]
        if self.docs_for_overlaps:
            lines.append(f"docs: {self.docs}, {self.docs_for_overlaps} of them for mentions that overlap others")
        if self.features or self.features_missing:
            lines.append(f"features: {self.features} found, {self.features_missing.total()} missing")
            lines += [f"  {n} x {reason}" for reason, n in sorted(self.features_missing.items())]
        if self.image_urls and not self.images:
            lines.append(f"  {self.image_urls} docs know only their image's URL: give --images DIR for the files")
        lines += [f"  {n} x row: {reason}" for reason, n in sorted(self.rows_dropped.items())]
        lines += [f"  {n} x mention: {reason}" for reason, n in sorted(self.mentions_dropped.items())]
        lines += [f"  {problem}" for problem in self.listed[:5]]
        return "\n".join(lines)
