"""`import-kb`: entities.jsonl from other knowledge bases."""

from pathlib import Path
from typing import Annotated

import typer

from spacy_gemel.cli.common import Quiet, one_line_errors


def import_kb(
    kind: Annotated[str, typer.Argument(help="wikipedia, wikidata, csv, parquet or spacy.")],
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCES...", help="Dumps, tables, or spaCy's folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.jsonl", help="Entities to write, for build-kb.")],
    language: Annotated[
        str, typer.Option(help="wikidata: of labels, aliases, descriptions; wikipedia: of the page views.")
    ] = "en",
    ids: Annotated[str, typer.Option("--id", help="wikipedia: title, or qid (from page_props.sql.gz).")] = "title",
    names: Annotated[
        str | None, typer.Option(help="wikidata: label or title; spacy: id, alias, or a file with id and name.")
    ] = None,
    site: Annotated[
        str | None, typer.Option(help="wikidata: the wiki whose titles are used; default LANGUAGEwiki.")
    ] = None,
    with_sitelink: Annotated[
        bool, typer.Option("--with-sitelink", help="wikidata: only items that have a page on the site.")
    ] = False,
    properties: Annotated[bool, typer.Option("--properties", help="wikidata: properties as well as items.")] = False,
    sections: Annotated[
        bool, typer.Option("--sections/--no-sections", help="wikipedia: redirects to a section are aliases too.")
    ] = True,
    disambiguation: Annotated[
        bool,
        typer.Option(
            "--disambiguation/--no-disambiguation",
            help="wikipedia: keep disambiguation pages (which page_props.sql.gz marks).",
        ),
    ] = True,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD=COLUMN", help="csv, parquet: the column of a field, such as id=qid; again for more."
        ),
    ] = None,
    delimiter: Annotated[str | None, typer.Option(help="csv: default a tab for .tsv, else a comma.")] = None,
    alias_separator: Annotated[str, typer.Option(help="csv, parquet: the separator of aliases.")] = "|",
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Use a source that is cut off or damaged as far as it goes.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Make entities.jsonl from Wikipedia's or Wikidata's dumps, a CSV file or spaCy's InMemoryLookupKB.

    wikipedia needs page.sql.gz. Aliases come from redirect.sql.gz, counts from pagelinks.sql.gz and linktarget.sql.gz
    or from page views, QIDs from page_props.sql.gz. OUT.jsonl.report.json lists what is left out.
    """
    with one_line_errors():
        from spacy_gemel.data.knowledge_bases.importer import import_kb as run
        from spacy_gemel.data.knowledge_bases.work import ImportOptions

        options = ImportOptions(
            language=language,
            id=ids,
            names=names,
            site=site,
            with_sitelink=with_sitelink,
            properties=properties,
            sections=sections,
            disambiguation=disambiguation,
            column=tuple(column or ()),
            delimiter=delimiter,
            alias_separator=alias_separator,
        )
        try:
            report = run(kind, sources, out, options, keep_going=keep_going, progress=not quiet)
        except KeyboardInterrupt:
            typer.echo(f"interrupted: {out} is unchanged; run the command again", err=True)
            raise typer.Exit(130) from None
        typer.echo(f"{out}\n{report.summary()}")
