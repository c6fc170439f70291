"""`build-kb` and `check-kb`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spacy_gemel.cli.common import GpuId, Quiet, fail, one_line_errors

if TYPE_CHECKING:
    from spacy_gemel.models.sentence_encoder import PoolerEncoder, SentenceEncoder


def build_kb(
    entities: Annotated[Path, typer.Argument(metavar="ENTITIES.jsonl", help="One entity per line.")],
    kb_dir: Annotated[Path, typer.Argument(help="Folder to write.")],
    tokenizer: Annotated[str, typer.Option(help="The language model's name, folder or GGUF file.")],
    max_name_tokens: Annotated[int, typer.Option(help="Longer names stay out of the trie.", min=1)] = 32,
    revision: Annotated[str | None, typer.Option(help="Revision of the language model.")] = None,
    encode_descriptions: Annotated[
        str | None,
        typer.Option(
            metavar="NAME_OR_FOLDER", help="A sentence encoder: store its vector of each entity's name and description."
        ),
    ] = None,
    gpu_id: GpuId = -1,
    quiet: Quiet = False,
) -> None:
    """Build a knowledge base for one language model's tokenizer; an interrupted build resumes where it stopped."""
    with one_line_errors():
        from spacy_gemel.kb.builder import build_kb as run
        from spacy_gemel.models.tokenizer import load_tokenizer

        if not entities.is_file():
            raise ValueError(f"{entities}: no such file; it must have one entity per line as JSON")
        try:
            name_tokenizer = load_tokenizer(tokenizer, revision)
            encode = None if encode_descriptions is None else _load_encoder(encode_descriptions, gpu_id)
            report = run(
                entities,
                kb_dir,
                name_tokenizer,
                encode=encode,
                max_name_tokens=max_name_tokens,
                progress=not quiet,
            )
        except KeyboardInterrupt as interrupt:
            # the notes say what is left, which depends on how far the build was
            notes = getattr(interrupt, "__notes__", ())
            typer.echo(" ".join([f"interrupted while building {kb_dir}.", *notes]), err=True)
            raise typer.Exit(130) from None
        typer.echo("\n".join(report.lines()))


def _load_encoder(name: str, gpu_id: int) -> "SentenceEncoder | PoolerEncoder":
    from thinc.api import get_torch_default_device, require_gpu

    from spacy_gemel.models.sentence_encoder import load_sentence_encoder

    if gpu_id >= 0:
        require_gpu(gpu_id)
    return load_sentence_encoder(name, device=str(get_torch_default_device()))


def check_kb(kb_dir: Annotated[Path, typer.Argument(help="Folder that build-kb wrote.")]) -> None:
    """Read a whole knowledge base and say what is wrong with it."""
    with one_line_errors():
        from spacy_gemel.kb.check import check_kb as run

        problems = run(kb_dir)
        for problem in problems[:-1]:
            typer.echo(f"error: {problem}", err=True)
        if problems:
            fail(problems[-1])
        typer.echo(f"{kb_dir}: sound")
