"""What a user may set of an import."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """The settings of all kinds; one that a kind does not know must keep its default.

    language: of labels, aliases and descriptions, and of the wiki whose page views are counted. id: "title" or "qid".
    names: where names come from: "label" or "title" (wikidata); "id", "alias" or a file (spacy).
    site: the wiki whose titles are meant, by default its language's Wikipedia. with_sitelink: only what has a page
    there. properties: Wikidata's properties as well as its items. sections: redirects to a section are aliases too.
    disambiguation: pages marked as disambiguation are entities. column: "field=column" for CSV files.
    delimiter, alias_separator: of CSV files.
    """

    language: str = "en"
    id: str = "title"
    names: str | None = None
    site: str | None = None
    with_sitelink: bool = False
    properties: bool = False
    sections: bool = True
    disambiguation: bool = True
    column: tuple[str, ...] = ()
    delimiter: str | None = None
    alias_separator: str = "|"

    def check(self, kind: str, known: frozenset[str]) -> None:
        """Raise ValueError where an option was given that the kind does not know."""
        for field in fields(self):
            if field.name not in known and getattr(self, field.name) != field.default:
                raise ValueError(
                    f"{_option(field.name)} is no option of {kind}, which has "
                    f"{', '.join(sorted(map(_option, known))) or 'none'}"
                )


def _option(name: str) -> str:
    """As the command line has it."""
    return "--" + name.replace("_", "-")
