"""A loaded pipeline, seen from outside: its linker, and the pipes that set its mentions."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from spacy.language import Language

    from spacy_gemel.pipeline.gemel_linker import GemelLinker

FACTORY = "gemel_linker"


def load_pipeline(path: str, *, gpu_id: int = -1) -> "Language":
    """`spacy.load` on a GPU, or with -1 on the CPU. Raises OSError or ValueError if there is no pipeline."""
    import spacy
    from thinc.api import require_gpu

    if gpu_id >= 0:
        require_gpu(gpu_id)
    folder = Path(path)
    if folder.is_dir() and not (folder / "config.cfg").is_file():
        raise ValueError(f"{path}: no spaCy pipeline in this folder (no config.cfg); try its model-best")
    return spacy.load(path)


def linker_name(nlp: "Language") -> str:
    """The name of the pipeline's linker. Raises ValueError if it has none."""
    for name in nlp.pipe_names:
        if nlp.get_pipe_meta(name).factory == FACTORY:
            return name
    raise ValueError(f"the pipeline has no {FACTORY} among its pipes ({', '.join(nlp.pipe_names) or 'none'})")


def linker_of(nlp: "Language") -> "GemelLinker":
    """The pipeline's linker. Raises ValueError if it has none."""
    return cast("GemelLinker", nlp.get_pipe(linker_name(nlp)))


def entity_pipes(nlp: "Language") -> list[str]:
    """The pipes that set doc.ents by their own account: a NER, an entity ruler and the like."""
    attributes = {"doc.ents", "token.ent_iob", "token.ent_type"}
    return [name for name in nlp.pipe_names if attributes & set(nlp.get_pipe_meta(name).assigns)]


def measured_settings(nlp: "Language") -> dict[str, Any]:
    """The linker's settings in force and what it is made of, as JSON: what its figures belong to.

    A part that the pipeline's config does not name is None. Raises ValueError if the pipeline has no linker.
    """
    settings = asdict(linker_of(nlp).settings)
    config: dict[str, Any] = nlp.config["components"].get(linker_name(nlp), {})

    def value_of(block: str, key: str) -> Any:
        return (config.get(block) or {}).get(key)

    return {
        **settings,
        "labels_discard": list(settings["labels_discard"]),
        "retriever": value_of("retriever", "@misc"),
        "language_model": value_of("language_model", "name"),
        "vision_encoder": value_of("vision_encoder", "name"),
        "prefix_length": value_of("model", "prefix_length"),
    }


@contextmanager
def overridden(linker: "GemelLinker", **changes: Any) -> Iterator["GemelLinker"]:
    """Change settings of the linker for the length of a with block. Raises ValueError as `configure` does."""
    before = {name: getattr(linker.settings, name, None) for name in changes}
    linker.configure(**changes)
    try:
        yield linker
    finally:
        linker.configure(**before)
