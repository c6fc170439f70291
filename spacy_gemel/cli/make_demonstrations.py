"""`make-demonstrations`: linked docs out of plain text, without labels."""

from pathlib import Path
from typing import Annotated

import typer

from spacy_gemel.cli.common import Quiet, list_problems, one_line_errors


def make_demonstrations(
    source: Annotated[Path, typer.Argument(metavar="TEXT.jsonl", help='One {"text": ..., "image": ...} per line.')],
    kb_dir: Annotated[Path, typer.Argument(metavar="KB", help="Folder that build-kb wrote.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.spacy", help="Demonstrations to write.")],
    dev: Annotated[
        Path | None, typer.Option(metavar="DEV.spacy", help="Docs of other texts to write, for fit-decision.")
    ] = None,
    dev_share: Annotated[float, typer.Option(help="Share of the texts that are for --dev.", min=0, max=1)] = 0.2,
    per_entity: Annotated[int, typer.Option(help="Mentions of an entity at most, in each file.", min=1)] = 5,
    lang: Annotated[str, typer.Option(help="spaCy language whose tokenizer to use.")] = "en",
    quiet: Quiet = False,
) -> None:
    """Make linked docs of plain text: the names and aliases that only one entity has are its mentions."""
    with one_line_errors():
        from spacy_gemel.data.distant_supervision import make_demonstrations as run
        from spacy_gemel.kb.knowledge_base import KnowledgeBase

        kb = KnowledgeBase.open(kb_dir)
        report = run(
            source, kb, out, dev=dev, dev_share=dev_share, per_entity=per_entity, lang=lang, progress=not quiet
        )
        list_problems(report.problems)
        typer.echo(report.summary())
