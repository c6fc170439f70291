"""What the blocks of a pipe's config must be: told when the pipe is made, not when it is first used."""

from typing import Any

from thinc.api import Model

from spacy_gemel.models.frozen import FrozenModel

# By what they have, not by their classes: anybody may register one of their own.
_FROZEN = ("name", "what", "settings", "source", "load", "bundle", "is_bundled")
_RETRIEVER = ("frozen", "wants_vectors", "load", "index", "prepare", "rank")

_KNOWN = {
    "language_model": ("a language model", "spacy_gemel.CausalLM.v1"),
    "vision_encoder": ("a vision encoder", "spacy_gemel.OpenCLIP.v1 or spacy_gemel.HuggingFaceVision.v1"),
    "retriever": (
        "a retriever",
        "spacy_gemel.SentenceTransformerRetriever.v1, BM25Retriever, TransformerRetriever, RandomRetriever or "
        "NoRetriever (which shows no demonstrations)",
    ),
}
_WHAT = {"language model": "language_model", "vision encoder": "vision_encoder", "sentence encoder": "retriever"}
"""What frozen models of this package call themselves, and the part that each is for."""


def check_blocks(name: str, model: object, language_model: object, vision_encoder: object, retriever: object) -> None:
    """Raise ValueError for the first that is not what it must be. name: of the pipe."""
    _check_mapper(name, model)
    _check(name, "language_model", language_model, _FROZEN)
    _check(name, "vision_encoder", vision_encoder, _FROZEN)
    _check(name, "retriever", retriever, _RETRIEVER)


def _check(name: str, part: str, given: Any, needed: tuple[str, ...]) -> None:
    what, known = _KNOWN[part]
    message = f"[components.{name}.{part}] must be {what}, such as @misc = {known}, "
    if given is None or isinstance(given, (str, int, float, list, dict)):
        raise ValueError(f"{message}not {given!r}.")
    other = _WHAT.get(str(getattr(given, "what", ""))) if isinstance(given, FrozenModel) else None
    if other is not None and (other != part or part == "retriever"):
        raise ValueError(f"{message}not the {given.what} {given.name!r}.")
    missing = [attribute for attribute in needed if not hasattr(given, attribute)]
    if missing:
        raise ValueError(f"{message}not {type(given).__name__}, which lacks {', '.join(missing)}.")


def _check_mapper(name: str, given: Any) -> None:
    message = f"[components.{name}.model] must be a mapper, such as @architectures = spacy_gemel.LinearMapper.v1, "
    if not isinstance(given, Model):
        raise ValueError(f"{message}not {given!r}.")
    if "prefix_length" not in given.attrs:
        raise ValueError(
            f"{message}not the model {given.name!r}, whose attrs lack prefix_length, the soft tokens per image."
        )
    for dim, what in (("nI", "numbers of an image"), ("nO", "numbers of its soft tokens")):
        if given.has_dim(dim) is False:
            raise ValueError(f"{message}not the model {given.name!r}, which has no dimension {dim}, the {what}.")
