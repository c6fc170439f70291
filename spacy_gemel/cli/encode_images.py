"""`encode-images`: the features of a corpus once, on disk."""

from pathlib import Path
from typing import Annotated

import typer

from spacy_gemel.cli.common import Quiet, fail, one_line_errors


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("encode-images")(encode_images)


def encode_images(
    corpus: Annotated[list[Path], typer.Argument(metavar="CORPUS.spacy...", help="Files that convert wrote, folders.")],
    config: Annotated[
        Path, typer.Option("--config", "-c", help="Whose vision encoder: a .cfg file, or a trained pipeline's folder.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FEATURES_DIR", help="Folder for the features.")],
    component: Annotated[str | None, typer.Option(help="The linker's name, where the config has several.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images encoded at once.", min=1)] = 32,
    threads: Annotated[int, typer.Option(help="Threads that read and decode meanwhile.", min=1)] = 2,
    gpu_id: Annotated[int, typer.Option("--gpu-id", "-g", help="GPU to run on, -1 for the CPU.")] = -1,
    quiet: Quiet = False,
) -> None:
    """Encode the images of corpora once; the same command goes on where it was interrupted.

    Training and linking use the features where `image_features` of the linker's config names the folder.
    """
    with one_line_errors():
        from thinc.api import get_torch_default_device, require_gpu

        from spacy_gemel.bulk.encode_images import EncodeReport, corpus_images
        from spacy_gemel.bulk.encode_images import encode_images as run
        from spacy_gemel.cli.encoder_from_config import configured_encoder
        from spacy_gemel.images.feature_store import EncoderFingerprint

        if gpu_id >= 0:
            require_gpu(gpu_id)
        frozen, folder = configured_encoder(config, component)
        report = EncodeReport()
        images = list(corpus_images(corpus, report))
        encoder = frozen.load(str(get_torch_default_device()), folder)
        fingerprint = EncoderFingerprint.of(encoder, frozen.name, frozen.settings)
        try:
            run(
                images, output, encoder, fingerprint, report,
                batch_size=batch_size, threads=threads, progress=not quiet,
            )  # fmt: skip
        except KeyboardInterrupt:
            typer.echo(f"interrupted: {report.encoded} images were encoded; the same command goes on", err=True)
            raise typer.Exit(130) from None
        typer.echo("\n".join(report.lines(output)))
        if not report.encoded + report.before:
            why = f"the first: {report.bad[0].doc}: {report.bad[0].reason}" if report.bad else "no doc has an image"
            fail(f"no image was encoded; {why}")
