"""`encode-images`: image features of a corpus, computed once and stored on disk."""

from pathlib import Path
from typing import Annotated

import typer

from spacy_gemel.cli.common import GpuId, Quiet, fail, one_line_errors


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("encode-images")(encode_images)


def encode_images(
    corpus: Annotated[list[Path], typer.Argument(metavar="CORPUS.spacy...", help="Files that convert wrote, folders.")],
    config: Annotated[
        Path,
        typer.Option("--config", "-c", help="Names the vision encoder: a .cfg file, or a pipeline's folder."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FEATURES_DIR", help="Folder for the features.")],
    component: Annotated[str | None, typer.Option(help="The linker's name, if the config has several.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images per batch.", min=1)] = 32,
    threads: Annotated[int, typer.Option(help="Threads that read and decode images.", min=1)] = 2,
    gpu_id: GpuId = -1,
    quiet: Quiet = False,
) -> None:
    """Encode the images of corpora once; after an interrupt the same command continues.

    Training and linking use the features if `image_features` in the linker's config names the folder.
    """
    with one_line_errors():
        from thinc.api import get_torch_default_device, require_gpu

        from spacy_gemel.bulk.encode_images import EncodeReport, corpus_images
        from spacy_gemel.bulk.encode_images import encode_images as run
        from spacy_gemel.cli.encoder_from_config import encoder_from_config
        from spacy_gemel.images.feature_store import EncoderFingerprint

        if gpu_id >= 0:
            require_gpu(gpu_id)
        frozen, folder = encoder_from_config(config, component)
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
            typer.echo(f"interrupted: {report.encoded} images were encoded; the same command continues", err=True)
            raise typer.Exit(130) from None
        typer.echo("\n".join(report.lines(output)))
        if not report.encoded + report.skipped:
            reason = "no doc has an image"
            if report.failures:
                reason = f"the first: {report.failures[0].doc}: {report.failures[0].reason}"
            fail(f"no image was encoded; {reason}")
