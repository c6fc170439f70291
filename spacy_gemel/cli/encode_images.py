"""`encode-images`: image features of a corpus, computed once and stored on disk."""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spacy_gemel.cli.common import Component, GpuId, Quiet, fail, one_line_errors, read_config
from spacy_gemel.utils.files import resolve

if TYPE_CHECKING:
    from spacy_gemel.models.frozen import FrozenModel
    from spacy_gemel.models.vision_encoder import VisionEncoder


def encode_images(
    corpus: Annotated[list[Path], typer.Argument(metavar="CORPUS.spacy...", help="Files that convert wrote, folders.")],
    config: Annotated[
        Path, typer.Option("--config", "-c", help="Names the vision encoder: a .cfg file, or a pipeline's folder.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FEATURES_DIR", help="Folder for the features.")],
    component: Component = None,
    batch_size: Annotated[int, typer.Option(help="Images per batch.", min=1)] = 16,
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
        from spacy_gemel.images.feature_store import EncoderFingerprint

        if gpu_id >= 0:
            require_gpu(gpu_id)
        frozen, folder = encoder_from_config(config, component)
        report = EncodeReport()
        images = list(corpus_images(corpus, report))
        encoder = frozen.load(str(get_torch_default_device()), folder)
        fingerprint = EncoderFingerprint.of(encoder, frozen.name, frozen.settings)
        image_root = read_config(config, component)[1].get("image_root")
        encode = partial(run, batch_size=batch_size, threads=threads, progress=not quiet, image_root=image_root)
        try:
            encode(images, output, encoder, fingerprint, report)
        except KeyboardInterrupt:
            typer.echo(f"interrupted: {report.encoded} images were encoded; the same command continues", err=True)
            raise typer.Exit(130) from None
        typer.echo("\n".join(report.lines(output)))
        if not report.encoded + report.skipped:
            reason = "no doc has an image"
            if report.failures:
                reason = f"the first: {report.failures[0].doc}: {report.failures[0].reason}"
            fail(f"no image was encoded; {reason}")


def encoder_from_config(config: Path, component: str | None = None) -> tuple["FrozenModel[VisionEncoder]", Path | None]:
    """A linker's vision encoder, and the folder that `FrozenModel.load` takes: where it is bundled, or was found."""
    from spacy.util import registry

    name, linker, _, parent = read_config(config, component)
    block = linker["vision_encoder"]
    if not config.is_dir() and (folder := resolve(block["name"], [parent])).is_dir():
        block = {**block, "name": str(folder)}
    frozen = registry.resolve({"encoder": block})["encoder"]
    bundle = parent / name / "models" / "vision_encoder"
    if not config.is_dir() or frozen.is_bundled(bundle):
        return frozen, bundle if config.is_dir() else None
    try:
        location = json.loads((parent / name / "cfg").read_text(encoding="utf8"))["found"]["vision_encoder"]
    except (OSError, ValueError, KeyError, TypeError):
        return frozen, None
    return frozen, Path(location["folder"]) if location.get("name") == frozen.name else None
