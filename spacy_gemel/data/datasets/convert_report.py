"""What a conversion read, converted and left out, by reason."""

from collections import Counter
from typing import Any

from spacy_gemel.data.datasets.alignment import NOT_FOUND, PART_OF_WORD, VERBATIM
from spacy_gemel.data.records import GIVEN_OFFSETS, Problem, Record
from spacy_gemel.data.report import ReasonCounter

_MAX_LISTED = 100
_CONTEXT = 20


class ConvertReport:
    """Counts of rows, docs, mentions, images and features, and of what was left out by reason.

    Attributes:
        stopped: The error that ended the conversion before OUT was written, or None.
        dropped: Counts by reason for each `Problem.what`.
        problems: The first hundred problems in full.
        inside_words: The first hundred mentions that were found only inside a longer word.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.stopped: str | None = None
        self.rows = Counter(read=0, kept=0)
        self.docs = Counter(written=0, for_overlapping_mentions=0)
        self.not_annotated = 0
        self.mentions = Counter(kept=0, merged=0, widened_to_tokens=0, nil=0, unannotated=0)
        self.rules: Counter[str] = Counter()
        self.images = Counter(named=0, missing=0)
        self.image_urls = Counter(named=0, without_a_file=0)
        self.features = 0
        self.dropped = {what: ReasonCounter() for what in ("row", "mention", "features")}
        self.problems: list[str] = []
        self.inside_words: list[str] = []

    def add(self, problem: Problem) -> None:
        """Count a problem, and list it if it is among the first."""
        self.rows["read"] += problem.what == "row"
        self.dropped[problem.what].add(problem.reason)
        if len(self.problems) < _MAX_LISTED:
            self.problems.append(str(problem))

    def add_record(self, record: Record, *, image_exists: bool) -> None:
        """Count a record, before its mentions become entities."""
        self.rows["read"] += record.rows
        self.rows["kept"] += record.rows
        self.docs["written"] += 1
        self.docs["for_overlapping_mentions"] += record.rows == 0
        self.not_annotated += record.mentions is None
        self.mentions["merged"] += record.merged
        for mention in record.mentions or ():
            self.rules[mention.rule] += 1
            if mention.rule == PART_OF_WORD and len(self.inside_words) < _MAX_LISTED:
                text, start, end = record.text, mention.start, mention.end
                context = f"{text[max(0, start - _CONTEXT) : start]}[{text[start:end]}]{text[end : end + _CONTEXT]}"
                self.inside_words.append(f"{record.where}: {context}")
        self.images["named"] += record.image is not None
        self.images["missing"] += record.image is not None and not image_exists
        self.image_urls["named"] += record.image_url is not None
        self.image_urls["without_a_file"] += record.image_url is not None and record.image is None
        self.features += record.image_features is not None

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for OUT.report.json."""
        dropped = {what: dict(sorted(counter.items())) for what, counter in self.dropped.items()}
        counts = dict(self.mentions)
        merged = counts.pop("merged")
        read = counts["kept"] + merged + sum(dropped["mention"].values())
        return {
            "source": self.source,
            "stopped": self.stopped,
            "rows": {**self.rows, "dropped": dropped["row"]},
            "docs": self.docs if self.stopped is None else {**self.docs, "written": 0},
            "docs_not_annotated": self.not_annotated,
            "mentions": {"read": read, **counts, "dropped": dropped["mention"]},
            "alignment": {
                "by_given_offsets": self.rules[GIVEN_OFFSETS],
                "verbatim": self.rules[VERBATIM],
                "part_of_a_longer_word": self.rules[PART_OF_WORD],
                "tolerant": self._fuzzy_rules(),
                "not_found": self._not_found(),
                "same_mention_listed_again": merged,
            },
            "images": self.images,
            "image_urls": self.image_urls["named"],
            "image_urls_without_a_file": self.image_urls["without_a_file"],
            "features": {"found": self.features, "missing": dropped["features"]},
            "found_inside_a_longer_word": self.inside_words,
            "problems": self.problems,
        }

    def _fuzzy_rules(self) -> dict[str, int]:
        other_rules = (VERBATIM, PART_OF_WORD, GIVEN_OFFSETS)
        return {rule: n for rule, n in sorted(self.rules.items()) if rule not in other_rules}

    def _not_found(self) -> dict[str, int]:
        reasons = sorted(self.dropped["mention"].items())
        return {reason.removeprefix(NOT_FOUND): n for reason, n in reasons if reason.startswith(NOT_FOUND)}

    def summary(self) -> str:
        """A few lines for a person."""
        dropped, mentions = self.dropped, self.mentions
        rows, further = self.rows, self.docs["for_overlapping_mentions"]
        lines = [
            f"rows: {rows['read']} read, {rows['kept']} converted, {dropped['row'].total()} left out",
            *dropped["row"].lines("row: "),
            f"docs: {self.docs['written']} written, {further} of them for mentions that overlap others",
            f"mentions: {mentions['kept']} converted, {dropped['mention'].total()} left out, "
            f"{mentions['merged']} merged (of the converted: {mentions['nil']} NIL, {mentions['unannotated']} without "
            f"an entity, {mentions['widened_to_tokens']} widened to whole tokens)",
            *dropped["mention"].lines("mention: "),
        ]
        if self.not_annotated:
            lines.append(f"  {self.not_annotated} docs have no field mentions, which does not mean that they have none")
        if self.rules.total() > self.rules[GIVEN_OFFSETS]:
            lines.append(f"alignment: {self.rules[VERBATIM]} verbatim, {sum(self._not_found().values())} not found")
            lines += [f"  {n} x found by the rule: {rule}" for rule, n in self._fuzzy_rules().items()]
            if self.inside_words:
                lines.append(f"  {self.rules[PART_OF_WORD]} x found only inside a longer word: the report lists them")
        lines.append(f"images: {self.images['named']} named, {self.images['missing']} not found")
        if self.image_urls["without_a_file"]:
            lines.append(
                f"  {self.image_urls['without_a_file']} docs have only the URL of their image: download the images "
                "with fetch-images, and give its folder as --images"
            )
        if self.features or dropped["features"]:
            lines.append(f"features: {self.features} found, {dropped['features'].total()} missing")
            lines += dropped["features"].lines()
        return "\n".join(lines + [f"  {problem}" for problem in self.problems[:5]])
