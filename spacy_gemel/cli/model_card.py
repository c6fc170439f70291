"""What a packaged pipeline says of itself: the meta.json from which `spacy package` makes the README."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from spacy_gemel.evaluation.metrics import SUBSETS
from spacy_gemel.linking.settings import CONTEXT_OF
from spacy_gemel.pipeline.loaded_pipeline import entity_pipes, linker_of, measured_settings
from spacy_gemel.utils.files import files_in

if TYPE_CHECKING:
    from spacy.language import Language

    from spacy_gemel.models.frozen import FrozenModel
    from spacy_gemel.pipeline.gemel_linker import GemelLinker

METRICS_KEYS = {"settings", "n", "accuracy", *SUBSETS}
# Settings that may differ from the measured ones: no answer depends on them, or they name models by another path.
_NOT_COMPARED = {"n_training_demonstrations", "use_gold_ents", "batch_tokens", "language_model", "vision_encoder"}


def make_meta(
    nlp: "Language", info: Mapping[str, str | None], metrics: dict[str, Any] | None = None, sources: Sequence[str] = ()
) -> dict[str, Any]:
    """The meta.json of a loaded pipeline with `info`, description, sources, scores and notes filled in.

    None in `info` leaves what the meta.json has; each source is "NAME" or "NAME <URL>". Raises ValueError if there is
    no linker, or if `metrics` are those of a baseline or of other settings.
    """
    pipe = linker_of(nlp)
    meta: dict[str, Any] = dict(nlp.meta)
    for key in ("name", "version", "description", "author", "email", "url", "license"):
        meta[key] = meta.get(key, "") if info.get(key) is None else info[key]
    meta["description"] = meta["description"] or (
        f"Links mentions to a knowledge base of {pipe.kb.meta.entities:,} entities from a document's text and its "
        "image (GEMEL, spacy-gemel)."
    )
    frozen = [_frozen_row(pipe, part, model) for part, model in pipe.frozen_models.items()]
    meta["sources"] = [
        *map(_source, sources),
        *({"name": f"{what}: {name}, {revision}"} for what, name, revision, _ in frozen),
    ]
    # spaCy's README shows each number times 100: a loss would stand among the scores as a percentage.
    performance = dict(meta.get("performance") or {})
    scores = {k: v for k, v in performance.items() if not k.endswith("_loss") and not k.startswith("test_")}
    package = meta["name"] if meta["name"].startswith(f"{meta['lang']}_") else f"{meta['lang']}_{meta['name']}"
    models = _table("### Frozen models", ("Part", "Model", "Weights", "In the package"), frozen)
    notes = [_use(nlp, package), _training(pipe), models]
    if metrics is not None:
        _check_settings(nlp, metrics["settings"])
        values = {"test_accuracy": metrics["accuracy"]}
        values |= {f"test_accuracy_{subset}": metrics[subset]["accuracy"] for subset in SUBSETS}
        scores |= {key: value for key, value in values.items() if value is not None}
        notes.append(_accuracies(metrics))
    meta["performance"] = scores
    meta["notes"] = "\n\n".join(notes)
    return meta


def machine_paths(folder: Path) -> list[str]:
    """The absolute paths that a saved pipeline's package would carry, as "file: setting = path"."""
    from thinc.api import Config

    contents = {"config.cfg": Config().from_disk(folder / "config.cfg", interpolate=False)}
    for state in sorted(folder.glob("*/cfg")):
        with suppress(ValueError):  # another component's, in a form of its own
            contents[state.relative_to(folder).as_posix()] = json.loads(state.read_text(encoding="utf8"))
    return [f"{name}: {key} = {path}" for name, content in contents.items() for key, path in _absolute(content)]


def missing_models(nlp: "Language") -> list[str]:
    """The frozen models of a loaded pipeline that its package will not contain and no hub has."""
    pipe = linker_of(nlp)
    if pipe.bundle_models:
        return []
    sources = {part: model.source(pipe.folders.get(part)) for part, model in pipe.frozen_models.items()}
    return [pipe.frozen_models[part].name for part, source in sources.items() if Path(source).is_absolute()]


def _frozen_row(pipe: "GemelLinker", part: str, model: "FrozenModel[Any]") -> tuple[str, str, str, str]:
    """What it is, its name, its revision, and whether the package holds it."""
    source = Path(model.source(pipe.folders.get(part)))
    settings = dict(model.settings)
    what = model.what[0].upper() + model.what[1:]
    name = model.name
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name or Path(name).is_dir():
        name = PurePosixPath(name.replace("\\", "/")).name
    if kind := _class_of(source):
        name = f"{name} ({kind})"
    if settings.get("revision"):
        message = f"revision {settings['revision']}"
    # a tag of open_clip's; a folder's config keeps the default's, which says nothing of what is in the folder
    elif settings.get("pretrained") and "/" not in model.name:
        message = str(settings["pretrained"])
    else:
        message = _digest(source) if source.is_absolute() else "no revision named"
    return what, name, message, "yes" if pipe.bundle_models else "no"


def _class_of(folder: Path) -> str | None:
    """The model's class by a folder's config.json; None if it does not say."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf8"))
        return str(config["architectures"][0])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _digest(folder: Path) -> str:
    """The first digits of a SHA-256 of the weights in a folder, or of a GGUF file."""
    whole = hashlib.sha256()
    names = [name for name in files_in(folder) if name.endswith(".safetensors")]
    for path in [folder] if folder.is_file() else [folder / name for name in names]:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256 {whole.hexdigest()[:12]}"


def _source(text: str) -> dict[str, str]:
    match = re.fullmatch(r"\s*(.*?)\s*<(\S+)>\s*", text)
    return {"name": match[1] or match[2], "url": match[2]} if match else {"name": text.strip()}


def _check_settings(nlp: "Language", recorded: dict[str, Any]) -> None:
    """Raise ValueError if the recorded settings are not the pipeline's; earlier versions recorded fewer."""
    if baseline := recorded.get("baseline", recorded.get("peer")):  # its former key
        raise ValueError(f"these metrics are those of a baseline, {baseline}: evaluate the pipeline itself")
    settings = measured_settings(nlp)
    ignored = {
        *_NOT_COMPARED,
        *(name for name, context in CONTEXT_OF.items() if settings["context"] != context),
        *([] if settings["n_demonstrations"] else ["retriever"]),
    }
    for key, value in settings.items():
        if key not in ignored and recorded.get(key, value) != value:
            raise ValueError(
                f"these metrics were measured with {key} = {json.dumps(recorded[key])}, the pipeline has "
                f"{json.dumps(value)}: evaluate it as it is"
            )


def _use(nlp: "Language", package: str) -> str:
    mentions = "" if entity_pipes(nlp) else '\ndoc.ents = [doc.char_span(13, 20, label="ENT")]  # or behind a NER'
    return f"""### Use

```python
import spacy

nlp = spacy.load("{package}")
doc = nlp.make_doc("A picture of Mercury in the morning"){mentions}
doc.user_data["image"] = "picture.jpg"
print([(ent.text, ent.kb_id_, ent._.gemel_candidates) for ent in nlp(doc).ents])
```"""


def _training(pipe: "GemelLinker") -> str:
    kb, rows, width = pipe.kb.meta, pipe.model.get_dim("nI"), pipe.model.get_dim("nO")
    return f"""### What it was made from

- Training examples, kept as demonstrations: {len(pipe.store):,} mentions of {len(pipe.training_gold_ids):,} entities.
- Only the mapper was trained, one linear layer of {rows} to {width} numbers.
- Knowledge base: {kb.entities:,} entities, {kb.distinct_names:,} distinct names in the trie, for the tokenizer \
{kb.tokenizer_fingerprint[:12]} of the language model; digest {kb.sha256[:12]}."""


def _table(heading: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (header, ["---"] * len(header), *rows)
    return "\n".join([heading, "", *("| " + " | ".join(cells) + " |" for cells in lines)])


def _accuracies(metrics: dict[str, Any]) -> str:
    data = Path(str(metrics["settings"].get("data", ""))).name or "the test data"
    rows = []
    for part in ("", *SUBSETS, "unreadable_image"):
        row = metrics.get(part) if part else metrics  # earlier versions wrote no unreadable_image
        if row and row["n"]:
            interval = "" if row.get("low") is None else f"{100 * row['low']:.1f} to {100 * row['high']:.1f}"
            rows.append((part.replace("_", " ") or "all", f"{row['n']:,}", f"{100 * row['accuracy']:.1f}", interval))
    heading = f"""### How it was measured

`TEST_*` are top-1 accuracies of `python -m spacy_gemel evaluate` on {data}, over the mentions whose entity \
is in the knowledge base; `NEL_*` are of the development data, while it was trained."""
    return _table(heading, ("Mentions", "n", "Accuracy", "95 % interval"), rows)


def _absolute(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """The absolute paths among the strings of a nested value, with their dotted keys."""
    if isinstance(value, dict | list | tuple):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _absolute(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, str):
        kinds = (PurePosixPath(value), PureWindowsPath(value))
        if value.startswith("~") or any(path.is_absolute() and len(path.parts) > 1 for path in kinds):
            yield key, value
