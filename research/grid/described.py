"""What a trial is a measurement of, in the words of evaluation/paper.py: held against the paper's own setting."""

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from thinc.api import Config

from research.grid.configs import interpolated
from research.paper import training_on

_AXES = {"n_demonstrations", "use_image", "constrained", "name_end"}
_BLOCKS = {"model", "language_model", "vision_encoder", "retriever"}
_NO_EFFECT = {"factory", "batch_tokens", "bundle_models", "image_features", "scorer"}
_NO_EFFECT_IN_BLOCK = {"name", "pretrained", "device", "dtype", "revision"}
"""name, pretrained: told apart. dtype: what rounding does. revision: the same model, held fast."""

_NO_EFFECT_IN_TRAINING = {"seed", "gpu_allocator", "logger", "train_corpus", "dev_corpus"}
_LOADERS = {
    "model": {"spacy_gemel.LinearMapper.v1"},
    "language_model": {"spacy_gemel.CausalLM.v1"},
    "vision_encoder": {"spacy_gemel.OpenCLIP.v1", "spacy_gemel.HuggingFaceVision.v1"},
}
_SEED = re.compile(r"\$\{(system|training)[.:]seed\}")


def describe(config: Mapping[str, Any], linker: str, options: Mapping[str, Any], dataset: str = "") -> dict[str, Any]:
    """A setting with the keys of `paper.SETTING`. config: as it is trained with; options: those of EvaluateOptions.

    dataset: what it is trained on, one of `paper.DATA_SETS` or another.
    """
    whole = interpolated(config)
    component = _component(whole, linker)

    def block(name: str) -> Mapping[str, Any]:
        found = component.get(name)
        return found if isinstance(found, Mapping) else {}

    encoder = [block("vision_encoder").get(key) for key in ("name", "pretrained")]
    others = {**_others_of(component), **_others_of_training(whole, dataset)}
    if options.get("n_demonstrations") is not None:
        others["n_demonstrations at prediction"] = options["n_demonstrations"]
    return {
        "language_model": block("language_model").get("name"),
        "vision_encoder": " ".join(str(word) for word in encoder if word),
        "retriever": block("retriever").get("name") or block("retriever").get("@misc"),
        "n": options.get("n_demonstrations", component["n_demonstrations"]),
        "k": block("model").get("prefix_length"),
        "image": options.get("use_image", component["use_image"]),
        "constrained": options.get("constrained", component["constrained"]),
        "name_end": component["name_end"],
        "others": others,
    }


def demonstrations_follow_the_seed(config: Mapping[str, Any], linker: str) -> bool:
    """Whether another seed shows other demonstrations: it then changes what is said without an image, too."""
    component = _component(config, linker)
    return bool(component["n_demonstrations"] and _names_seed(component["retriever"]))


def _names_seed(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_names_seed(inner) for inner in value.values())
    return isinstance(value, str) and bool(_SEED.search(value))


def _component(config: Mapping[str, Any], linker: str) -> dict[str, Any]:
    """The linker's settings, those that it leaves out filled in as spaCy does."""
    from spacy_gemel.pipeline.gemel_linker import DEFAULT_CONFIG

    return dict(Config(DEFAULT_CONFIG).merge(Config(config["components"][linker])))


def _others_of(component: Mapping[str, Any]) -> dict[str, Any]:
    """What of the linker differs from its defaults, which are the paper's."""
    from spacy_gemel.pipeline.gemel_linker import DEFAULT_CONFIG

    found = {
        name: value
        for name, value in component.items()
        if name not in _AXES | _BLOCKS | _NO_EFFECT and value != DEFAULT_CONFIG.get(name)
    }
    for name in sorted(_BLOCKS):
        block = component.get(name)
        if not isinstance(block, Mapping):
            continue
        [(registry, function)] = [(key, value) for key, value in block.items() if key.startswith("@")][:1] or [("", "")]
        if function not in _LOADERS.get(name, {function}):
            found[f"{name}.{registry}"] = function
        usual = _defaults(registry, function)
        for key, value in block.items():
            own = (name, key) in (("model", "prefix_length"), ("retriever", "seed"))
            if not own and key not in {registry, *_NO_EFFECT_IN_BLOCK} and value != usual.get(key):
                found[f"{name}.{key}"] = value
    return found


def _others_of_training(config: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """What of the training differs from the paper's, and what keeps docs from it."""
    from spacy.language import DEFAULT_CONFIG

    default = DEFAULT_CONFIG["training"]
    given = _flat(_filled(dict(Config(default).merge(Config(config.get("training") or {})))))
    papers = _flat(_filled({**default, **training_on(dataset)}))
    found = {f"training.{name}": value for name, value in _unlike(given, papers) if _counts(name)}
    corpora = config.get("corpora") or {}
    for split in ("train", "dev"):
        usual = {"@readers": "spacy_gemel.MultimodalCorpus.v1", "gold_ents": True, "max_length": 0, "limit": 0}
        reader = {**usual, **(corpora.get(split) or {})}
        reader.pop("path", None)
        found |= {f"corpora.{split}.{name}": value for name, value in _unlike(_flat(reader), usual)}
    return found


def _counts(name: str) -> bool:
    root = name.split(".")[0]
    # the weights of scores choose the checkpoint: accuracy, as the factory has it unless they are changed
    if root == "score_weights" or name.startswith("optimizer.learn_rate"):
        return False
    return root not in _NO_EFFECT_IN_TRAINING


def _unlike(given: Mapping[str, Any], papers: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names whose value differs, with the given one; None for one that is not given."""
    for name in {**papers, **given}:
        if given.get(name) != papers.get(name):
            yield name, given.get(name)


def _flat(block: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in block.items():
        inner = _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {}
        found |= inner or {prefix + name: value}
    return found


def _filled(section: Mapping[str, Any]) -> dict[str, Any]:
    """Blocks of registered functions with the settings that they leave out."""
    found: dict[str, Any] = {}
    for name, value in section.items():
        if isinstance(value, Mapping):
            functions = [(key, function) for key, function in value.items() if key.startswith("@")]
            found[name] = {**(_defaults(*functions[0]) if functions else {}), **_filled(value)}
        else:
            found[name] = value
    return found


def _defaults(registry: str, function: Any) -> dict[str, Any]:
    """The settings of a registered function that need not be given; {} for one that is not there."""
    from spacy.util import registry as registered

    kind = registry.removeprefix("@")
    try:
        parameters = inspect.signature(registered.get(kind, function)).parameters.values()
    except Exception:  # catalogue's errors, and those of functions without a signature
        return {}
    return {p.name: p.default for p in parameters if p.default is not p.empty}
