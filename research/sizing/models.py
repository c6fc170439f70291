"""The models of a plan, built of nothing but shapes; see tracing.without_data."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from research.sizing.known import KNOWN
from spacy_gemel.models.causal_lm import CausalLM
from spacy_gemel.models.frozen import dtype_argument, torch_dtype
from spacy_gemel.utils.files import resolve

if TYPE_CHECKING:
    from research.sizing.plan import Plan
    from spacy_gemel.models.tokenizer import NameTokenizer


@dataclass(frozen=True, slots=True)
class Encoder:
    """A vision encoder.

    size: pixels of an image's side. width: of its features, d_v. tokens: patches that it makes of an image; 0 where
        it makes none.
    """

    model: torch.nn.Module
    size: int
    width: int
    tokens: int


def parameters_of(model: torch.nn.Module) -> int:
    """Numbers in a model's weights; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def bytes_of(model: torch.nn.Module) -> int:
    """Bytes of a model's weights; shared ones count once."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def read_model_config(name: str, folder: Path, block: str, given: Path | None = None) -> Any:
    """The transformers config of a model: of a file that is given, a local folder, a known name, the hub's cache.

    folder: where relative names are looked for first. block: of the config that names the model, one of KNOWN. given: a
    config.json.
    Raises ValueError, with what to do, where it is none of these; nothing goes to the network.
    """
    import transformers

    known = KNOWN[block]
    local = resolve(name, [folder])
    if given is not None or local.is_dir():
        file = given or local / "config.json"
        try:
            content = json.loads(file.read_text(encoding="utf8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{file}: no config.json of a model can be read there: {error}") from error
    elif name in known:
        content = known[name]
    else:
        try:
            return transformers.AutoConfig.from_pretrained(name, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            how = (
                "download its config.json, and give it with --model-config"
                if block == "language_model"
                else f"put its config.json into a folder, and name that folder in {block}.name"
            )
            raise ValueError(
                f"The shape of {name!r} is not known here: {how} (known without: {', '.join(known)})"
            ) from error
    try:
        kind = content["model_type"]
        return transformers.AutoConfig.for_model(**{k: v for k, v in content.items() if k != "transformers_version"})
    except (KeyError, ValueError, TypeError) as error:
        kind = content.get("model_type") if isinstance(content, dict) else None
        raise ValueError(f"{given or name}: no config of a model of transformers (model_type {kind!r})") from error


def build_language_model(config: Any, dtype: torch.dtype) -> CausalLM:
    """The language model of a transformers config, in `without_data`; it has no tokenizer.

    Raises ValueError for a config of something else.
    """
    import transformers

    options: dict[str, Any] = {dtype_argument(transformers.__version__): dtype}
    try:
        model = transformers.AutoModelForCausalLM.from_config(config, **options)
    except ValueError as error:  # which goes on with all two hundred that it knows
        raise ValueError(
            f"language_model: a config.json with model_type {config.model_type!r} is none of a causal language model; "
            "--model-config takes the language model's, no other part's"
        ) from error
    return CausalLM(model, cast("NameTokenizer", None), name=config.model_type)


def build_sentence_encoder(plan: "Plan") -> torch.nn.Module | None:
    """The retriever's model, in fp32 as it is loaded, in `without_data`; None for a retriever without one."""
    if plan.retriever is None or not plan.retriever["@misc"].startswith("spacy_gemel.SentenceTransformerRetriever"):
        return None
    return _build("retriever", plan.retriever["name"], plan.folder, "input_ids")


def _build(block: str, name: str, folder: Path, reads: str) -> torch.nn.Module:
    """The model that a block of the config names. reads: its main input. Raises ValueError where it reads another."""
    import transformers

    config = read_model_config(name, folder, block)
    wrong = f"{block}: {name!r} (model_type {config.model_type!r}) is no model that reads {reads}"
    # Asked of the class: not every one can be made without data, nor does every part of a model tell what it reads.
    kind = transformers.MODEL_MAPPING.get(type(config), None)
    kind = kind[0] if isinstance(kind, tuple) else kind
    sees = reads == "pixel_values" and hasattr(kind, "get_image_features")
    if kind is None or not (sees or kind.main_input_name == reads):
        raise ValueError(wrong)
    model = transformers.AutoModel.from_config(config)
    if reads == "pixel_values" and hasattr(model, "vision_model"):  # of a whole CLIP or SigLIP, as vision.encoder
        model = model.vision_model
    return cast(torch.nn.Module, model)


def build_encoder(plan: "Plan") -> Encoder:
    """The vision encoder of a plan, on the meta device. Raises ValueError where its shape is not known."""
    block = plan.linker["vision_encoder"]
    dtype = torch_dtype(block.get("dtype"))
    # Not in `without_data`, where a model cannot be moved, as open_clip does.
    with torch.device("meta"):
        if block["@misc"].startswith("spacy_gemel.OpenCLIP"):
            model, size = _open_clip(block, plan.folder)
        else:
            model = _build("vision_encoder", block["name"], plan.folder, "pixel_values")
            size = getattr(cast(Any, model).config, "image_size", 224)
    model = model.to(dtype).requires_grad_(False).eval()
    size = size if isinstance(size, int) else size[0]
    with torch.no_grad():
        output = model(torch.empty(1, 3, size, size, dtype=dtype, device="meta"))
    if isinstance(output, torch.Tensor):
        features = output
    else:
        pooled = getattr(output, "pooler_output", None)
        features = output.last_hidden_state[:, 0] if pooled is None else pooled.flatten(1)
    patches = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    is_vit = len(patches) == 1
    tokens = (size // patches[0].kernel_size[0]) ** 2 + 1 if is_vit else 0
    return Encoder(model, size, features.shape[1], tokens)


def _open_clip(block: dict[str, Any], folder: Path) -> tuple[torch.nn.Module, int]:
    import open_clip

    local = resolve(block["name"], [folder])
    if local.is_dir():
        config = json.loads((local / "open_clip_config.json").read_text(encoding="utf8"))["model_cfg"]
        visual = open_clip.model.CLIP(**config).visual
    else:
        config = open_clip.get_model_config(block["name"])
        if config is None:
            raise ValueError(f"open_clip knows no model {block['name']!r}: correct vision_encoder.name")
        with _quiet():
            visual = open_clip.create_model(
                block["name"], pretrained=None, load_weights=False, pretrained_text=False, device="meta"
            ).visual
    if not block.get("projection", False):
        visual.proj = None
    return visual, int(visual.image_size[0] if isinstance(visual.image_size, tuple) else visual.image_size)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without open_clip's warning that it has loaded no weights."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
