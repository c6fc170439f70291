"""The commands of `python -m spacy_gemel`. What they need is imported inside them, so that --help comes at
once.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from spacy_gemel.commands import encode_images, fetch_images

app = typer.Typer(
    name="spacy-gemel",
    help="Link the entities of documents from their text and their image.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
GpuId = Annotated[int, typer.Option("--gpu-id", "-g", help="GPU to run on, -1 for the CPU.")]
BatchSize = Annotated[int, typer.Option(help="Docs per batch, 0 for the pipeline's own.", min=0)]


def main() -> None:
    """Entry point of `python -m spacy_gemel` and of `spacy-gemel`."""
    app(prog_name="python -m spacy_gemel")


@app.callback()
def _start(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is done; tracebacks.")] = False,
) -> None:
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(message)s")
    if verbose:
        os.environ["SPACY_GEMEL_TRACEBACK"] = "1"


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """What is wrong with the user's input is one line on stderr and exit code 1; --verbose keeps the
    traceback.
    """
    try:
        yield
    # KBError is a ValueError, a missing file an OSError, a missing optional package an ImportError
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("SPACY_GEMEL_TRACEBACK"):
            raise
        _fail(" ".join(str(error).split()) or type(error).__name__)


def _fail(message: str) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(1)


@app.command()
def convert(
    dataset: Annotated[str, typer.Argument(help="The kind of data: jsonl.")],
    source: Annotated[Path, typer.Argument(metavar="SRC", help="File to read.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.spacy", help="DocBin to write.")],
    lang: Annotated[str, typer.Option(help="spaCy language whose tokenizer to use.")] = "en",
    quiet: Quiet = False,
) -> None:
    """Convert a data set with images to a .spacy file; what is left out is told in OUT.spacy.report.json."""
    with _one_line_errors():
        from spacy_gemel.corpus.converters import convert as run

        report = run(dataset, source, out, lang=lang, progress=not quiet)
        typer.echo(f"{out}\n{report.summary()}")


@app.command("build-kb")
def build_kb(
    entities: Annotated[Path, typer.Argument(metavar="ENTITIES.jsonl", help="One entity per line.")],
    kb_dir: Annotated[Path, typer.Argument(help="Folder to write.")],
    tokenizer: Annotated[str, typer.Option(help="The language model's name or folder.")],
    max_name_tokens: Annotated[int, typer.Option(help="Longer names stay out of the trie.", min=1)] = 32,
    revision: Annotated[str | None, typer.Option(help="Revision of the language model.")] = None,
    quiet: Quiet = False,
) -> None:
    """Build a knowledge base for one language model's tokenizer; an interrupted build goes on where it was."""
    with _one_line_errors():
        from spacy_gemel.kb.builder import build_kb as run
        from spacy_gemel.language.tokenizer import load_tokenizer

        if not entities.is_file():
            raise ValueError(f"{entities}: no such file; it must hold one entity per line as JSON")
        names = load_tokenizer(tokenizer, revision)
        try:
            report = run(entities, kb_dir, names, max_name_tokens=max_name_tokens, progress=not quiet)
        except KeyboardInterrupt:
            again = "the same command goes on from the names that are tokenised"
            typer.echo(f"interrupted: {kb_dir} is as it was before; {again}", err=True)
            raise typer.Exit(130) from None
        typer.echo("\n".join(report.lines()))


@app.command("check-kb")
def check_kb(kb_dir: Annotated[Path, typer.Argument(help="Folder that build-kb wrote.")]) -> None:
    """Read a whole knowledge base and say what is wrong with it."""
    with _one_line_errors():
        from spacy_gemel.kb.check import check_kb as run

        problems = run(kb_dir)
        for problem in problems[:-1]:
            typer.echo(f"error: {problem}", err=True)
        if problems:
            _fail(problems[-1])
        typer.echo(f"{kb_dir}: sound")


@app.command()
def link(
    pipeline: Annotated[str, typer.Argument(help="A trained pipeline: a folder, or an installed package.")],
    source: Annotated[Path, typer.Argument(metavar="IN", help="JSON lines, a .spacy file, or a folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="JSON lines to write.")],
    batch_size: BatchSize = 0,
    gpu_id: GpuId = -1,
    quiet: Quiet = False,
) -> None:
    """Link documents: at their own mentions where they have them, else at those of the pipeline's NER."""
    with _one_line_errors():
        from spacy_gemel.corpus.linking import link_file
        from spacy_gemel.pipelines import load_pipeline

        if not source.exists():
            raise ValueError(f"{source}: no such file or folder")
        nlp = load_pipeline(pipeline, gpu_id=gpu_id)
        report = link_file(nlp, source, out, batch_size=batch_size or None, progress=not quiet)
        for problem in report.problems[:5]:
            typer.echo(str(problem), err=True)
        if len(report.problems) > 5:
            typer.echo(f"... and {len(report.problems) - 5} more", err=True)
        typer.echo(f"{out}: {report.docs} docs, {report.mentions} mentions linked, {report.nil} of them NIL")


@app.command()
def evaluate(
    pipeline: Annotated[str, typer.Argument(help="A trained pipeline: a folder, or an installed package.")],
    data: Annotated[Path, typer.Argument(metavar="DATA.spacy", help="What to evaluate on.")],
    output: Annotated[
        list[Path],
        typer.Option("--output", "-o", metavar="METRICS.json", help="Where to write; again for a copy."),
    ],
    no_image: Annotated[bool, typer.Option("--no-image", help="Leave the images out.")] = False,
    unconstrained: Annotated[bool, typer.Option("--unconstrained", help="Search without the KB's trie.")] = False,
    n_demonstrations: Annotated[
        int | None, typer.Option(help="Demonstrations per prompt; default: the pipeline's.", min=0)
    ] = None,
    predicted_ents: Annotated[
        bool, typer.Option("--predicted-ents", help="Link what the pipeline's own NER finds.")
    ] = False,
    tail_share: Annotated[
        float, typer.Option(help="Share of all counts that the tail's entities hold.", min=0.0, max=1.0)
    ] = 0.05,
    limit: Annotated[int, typer.Option(help="Read so many docs at most, 0 for all.", min=0)] = 0,
    batch_size: BatchSize = 0,
    gpu_id: GpuId = -1,
    quiet: Quiet = False,
) -> None:
    """Measure a pipeline: METRICS.json, and every mention in METRICS.mentions.jsonl."""
    with _one_line_errors():
        from spacy_gemel.evaluation import runner
        from spacy_gemel.evaluation.summary import summary
        from spacy_gemel.pipelines import load_pipeline

        if not data.exists():
            raise ValueError(f"{data}: no such file or folder; make it with python -m spacy_gemel convert")
        for path in output:
            if path.suffix != ".json":
                raise ValueError(f"{path}: the output must end in .json")
        options = runner.EvaluateOptions(
            use_image=False if no_image else None,
            constrained=False if unconstrained else None,
            n_demonstrations=n_demonstrations,
            predicted_ents=predicted_ents,
            tail_share=tail_share,
            limit=limit,
            batch_size=batch_size or None,
            progress=not quiet,
        )
        nlp = load_pipeline(pipeline, gpu_id=gpu_id)
        metrics, results = runner.evaluate(nlp, data, options, pipeline=pipeline)
        for path in output:
            runner.write_evaluation(metrics, results, path)
        typer.echo(summary(metrics))
        typer.echo("wrote " + ", ".join(str(path) for path in output))


@app.command()
def report(
    metrics: Annotated[list[Path], typer.Argument(metavar="METRICS...", help="Files that evaluate wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for index.html.")],
) -> None:
    """Write one HTML page: the settings side by side, and linked examples with their pictures."""
    with _one_line_errors():
        from spacy_gemel.evaluation.report import write_report

        typer.echo(str(write_report(metrics, output)))


fetch_images.register(app)
encode_images.register(app)
