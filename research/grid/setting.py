"""What a trial measures, in the words of research/paper.py, and whether that is what the row says."""

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from thinc.api import Config

from research.configs import interpolated
from research.grid.grid import BUILT_IN, Row
from research.paper import MODELS as PAPER_MODELS
from research.paper import REPORTED, training_on

_AXES = {"n_demonstrations", "use_image", "constrained", "name_end"}
_SECTIONS = ("language_model", "model", "retriever", "vision_encoder")
_NO_EFFECT = {"factory", "batch_tokens", "bundle_models", "image_features", "scorer"}
# name and pretrained are compared with the paper's names; dtype is rounding; revision is the same model
_NO_EFFECT_IN_BLOCK = {"name", "pretrained", "device", "dtype", "revision"}
# the weights of scores choose the checkpoint: by accuracy, unless they are changed
_NO_EFFECT_IN_TRAINING = {"seed", "gpu_allocator", "logger", "train_corpus", "dev_corpus", "score_weights"}
_LOADERS = {
    "model": {"spacy_gemel.LinearMapper.v1"},
    "language_model": {"spacy_gemel.CausalLM.v1"},
    "vision_encoder": {"spacy_gemel.OpenCLIP.v1", "spacy_gemel.HuggingFaceVision.v1"},
}
_READER = {"@readers": "spacy_gemel.MultimodalCorpus.v1", "gold_ents": True, "max_length": 0, "limit": 0}
_SEED = re.compile(r"\$\{(system|training)[.:]seed\}")
_ADVICE = "give the row what it claims (language_model, vision_encoder, retriever, n, image), or another name or paper"
_PIECES = re.compile(r"[,;:+()]|\bwith\b|\band\b")


def describe(config: Mapping[str, Any], linker: str, options: Mapping[str, Any], dataset: str = "") -> dict[str, Any]:
    """A setting with the keys of `paper.SETTING`.

    Args:
        config: As the mapper is trained with.
        linker: The linker's name in the config.
        options: Changed options of `EvaluateOptions`.
        dataset: What it is trained on: one of `paper.DATA_SETS`, or another.
    """
    resolved = interpolated(config)
    component = _component(resolved, linker)
    sections = {name: component[name] if isinstance(component.get(name), Mapping) else {} for name in _SECTIONS}
    encoder = [sections["vision_encoder"].get(key) for key in ("name", "pretrained")]
    differences_from_paper = {**_differences_of_linker(component), **_differences_of_training(resolved, dataset)}
    if options.get("n_demonstrations") is not None:
        differences_from_paper["n_demonstrations at prediction"] = options["n_demonstrations"]
    return {
        "language_model": sections["language_model"].get("name"),
        "vision_encoder": " ".join(str(word) for word in encoder if word),
        "retriever": sections["retriever"].get("name") or sections["retriever"].get("@misc"),
        "n": options.get("n_demonstrations", component["n_demonstrations"]),
        "k": sections["model"].get("prefix_length"),
        "image": options.get("use_image", component["use_image"]),
        "constrained": options.get("constrained", component["constrained"]),
        "name_end": component["name_end"],
        "others": differences_from_paper,
    }


def demonstrations_follow_the_seed(config: Mapping[str, Any], linker: str) -> bool:
    """Whether another seed chooses other demonstrations, which matters without an image, too."""
    component = _component(config, linker)
    return bool(component["n_demonstrations"]) and bool(_SEED.search(str(component["retriever"])))


def check_claims(
    row: Row,
    setting: Mapping[str, Any],
    sections: Mapping[str, Any],
    models: Mapping[str, Mapping[str, Any]],
    where: str,
) -> None:
    """Check that a row is what it says.

    Args:
        row: Its name and its `paper`.
        setting: What is measured; of a baseline only its encoder, as the retriever.
        sections: Axis -> the row's block of the config.
        models: Axis -> name -> block, of the grid.
        where: The row's place in the grid.

    Raises:
        ValueError: If it claims to be something else.
    """
    for paper in row.paper.values():
        wrong = REPORTED[paper].contradiction(setting)
        axis = PAPER_MODELS[REPORTED[paper].model].axis if REPORTED[paper].model else ""
        if wrong and not _is_named(row, axis, REPORTED[paper].model):
            raise ValueError(f"{where}: paper is {paper}, but {wrong}; {_ADVICE}")
    wrong_claims = {
        title: model.axis
        for title, model in PAPER_MODELS.items()
        if re.search(rf"(?<![\w.-]){re.escape(title)}(?![\w.-])", row.name, re.IGNORECASE)
        and not model.may_be(setting.get(model.axis))
        and not _is_named(row, model.axis, title)
    }
    pieces = {piece.strip() for piece in _PIECES.split(row.name)}
    for axis, defined in models.items():
        for title in pieces & (defined.keys() - BUILT_IN.keys()):
            if not row.baseline and row.changes.get(axis) != title and sections.get(axis) != defined[title]:
                wrong_claims.setdefault(title, axis)
    for title, axis in wrong_claims.items():
        what = f"its {axis.replace('_', ' ')} is {setting.get(axis) or 'none'}"
        raise ValueError(f"{where}: its name says {title}, but {what}; {_ADVICE}")


def _is_named(row: Row, axis: str, title: str) -> bool:
    """Whether the grid itself calls the row's model so."""
    return bool(axis) and title.casefold() in str(row.changes.get(axis, "")).casefold()


def _component(config: Mapping[str, Any], linker: str) -> dict[str, Any]:
    """The linker's settings, with defaults filled in as spaCy does."""
    from spacy_gemel.pipeline.gemel_linker import DEFAULT_CONFIG

    return dict(Config(DEFAULT_CONFIG).merge(Config(config["components"][linker])))


def _differences_of_linker(component: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the linker that differ from its defaults, which are the paper's."""
    from spacy_gemel.pipeline.gemel_linker import DEFAULT_CONFIG

    ignored = {*_AXES, *_SECTIONS, *_NO_EFFECT}
    differences = {k: value for k, value in component.items() if k not in ignored and value != DEFAULT_CONFIG.get(k)}
    for name in _SECTIONS:
        block = component.get(name)
        if not isinstance(block, Mapping):
            continue
        registry, function = next(((key, value) for key, value in block.items() if key.startswith("@")), ("", ""))
        if function not in _LOADERS.get(name, {function}):
            differences[f"{name}.{registry}"] = function
        defaults = _defaults(registry, function)
        ignored = {registry, *_NO_EFFECT_IN_BLOCK, {"model": "prefix_length", "retriever": "seed"}.get(name, registry)}
        differences |= {
            f"{name}.{key}": value for key, value in block.items() if key not in ignored and value != defaults.get(key)
        }
    return differences


def _differences_of_training(config: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """Settings of the training that differ from the paper's, and what keeps docs from it."""
    from spacy.language import DEFAULT_CONFIG

    default = DEFAULT_CONFIG["training"]
    training = _flat(_with_defaults(dict(Config(default).merge(Config(config.get("training") or {})))))
    papers = _flat(_with_defaults({**default, **training_on(dataset)}))
    differences = {
        f"training.{name}": value
        for name, value in _unlike(training, papers)
        if name.split(".")[0] not in _NO_EFFECT_IN_TRAINING and not name.startswith("optimizer.learn_rate")
    }
    for split in ("train", "dev"):
        reader = {**_READER, **((config.get("corpora") or {}).get(split) or {})}
        reader.pop("path", None)
        differences |= {f"corpora.{split}.{name}": value for name, value in _unlike(_flat(reader), _READER)}
    return differences


def _unlike(values: Mapping[str, Any], papers: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names whose value differs, with the value; None if it is missing."""
    return ((name, values.get(name)) for name in {**papers, **values} if values.get(name) != papers.get(name))


def _flat(block: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in block.items():
        inner = _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {}
        flat |= inner or {prefix + name: value}
    return flat


def _with_defaults(section: Mapping[str, Any]) -> dict[str, Any]:
    """Blocks of registered functions with the defaults of their other settings."""
    sections: dict[str, Any] = {}
    for name, value in section.items():
        if isinstance(value, Mapping):
            functions = [(key, function) for key, function in value.items() if key.startswith("@")]
            sections[name] = {**(_defaults(*functions[0]) if functions else {}), **_with_defaults(value)}
        else:
            sections[name] = value
    return sections


def _defaults(registry: str, function: Any) -> dict[str, Any]:
    """The defaults of a registered function's settings; {} for an unknown function."""
    from spacy.util import registry as registered

    try:
        parameters = inspect.signature(registered.get(registry.removeprefix("@"), function)).parameters.values()
    except Exception:  # catalogue's errors, and those of functions without a signature
        return {}
    return {p.name: p.default for p in parameters if p.default is not p.empty}
