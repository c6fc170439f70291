"""Every name that setup.py registers resolves by its entry point and by spaCy's registry, and does its work."""

import ast
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
from PIL import Image
from spacy import registry
from spacy.kb import InMemoryLookupKB
from spacy.language import Language
from spacy.training import Example

from spacy_gemel.linking.retrievers import Query
from tests.mini_pipeline import LINKER, captions, make_config, picture
from tests.mini_pipeline import linker as pipe_of

SETUP = Path(__file__).parents[2] / "setup.py"


def entry_points() -> dict[str, tuple[str, str]]:
    """{name: (group, where it lies)} of setup.py, read and not run."""
    for node in ast.parse(SETUP.read_text(encoding="utf8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ENTRY_POINTS":
            groups = ast.literal_eval(node.value)
            return {
                name.strip(): (group, where.strip())
                for group, lines in groups.items()
                for name, where in (line.split("=") for line in lines)
            }
    raise AssertionError("setup.py has no ENTRY_POINTS")


ENTRY_POINTS = entry_points()
REGISTERED = sorted(
    name for name, (group, _) in ENTRY_POINTS.items() if group.startswith("spacy_") and group != "spacy_cli"
)


def resolved(group: str, registered: str, /, **arguments: Any) -> Any:
    """What a config with this block gets."""
    return registry.resolve({"block": {f"@{group.removeprefix('spacy_')}": registered, **arguments}})["block"]


class World:
    """What the registered functions work on."""

    def __init__(self, trained: Language, models: Path, kb: Path, corpus: Path, vit: Path) -> None:
        self.nlp, self.models, self.kb, self.corpus, self.vit = trained, models, kb, corpus, vit


@pytest.fixture(scope="module")
def world(trained: Language, models: Path, kb: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    folder = tmp_path_factory.mktemp("vit")
    sizes = {"hidden_size": 12, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ViTModel(ViTConfig(**sizes, image_size=16, patch_size=8)).save_pretrained(folder)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return World(trained, models, kb, corpus, folder)


def linker(name: str, world: World) -> None:
    nlp = spacy.blank("en")
    assert nlp.add_pipe(name, config=make_config(world.models)).name == name  # type: ignore[attr-defined]


def mapper(name: str, world: World) -> None:
    model = resolved("spacy_architectures", name, prefix_length=3)
    model.set_dim("nI", 4)
    model.set_dim("nO", 6)
    assert model.initialize().predict(np.ones((2, 4), dtype="f")).shape == (2, 6)


def language_model(name: str, world: World) -> None:
    model = resolved("spacy_misc", name, name=str(world.models / "language_model")).load("cpu")
    assert model.tokenizer.decode(model.tokenizer.encode(["Java"])[0]) == "Java"
    assert model.width == 32


def open_clip(name: str, world: World) -> None:
    encodes(resolved("spacy_misc", name, name=str(world.models / "vision_encoder")).load("cpu"), 24)


def hugging_face_vision(name: str, world: World) -> None:
    encodes(resolved("spacy_misc", name, name=str(world.vit)).load("cpu"), 12)


def encodes(encoder: Any, width: int) -> None:
    assert encoder.encode([Image.fromarray(picture("Mercury"))]).shape == (1, width) == (1, encoder.width)


def retriever(shown: int, vector: Any = None, **arguments: str) -> Callable[[str, World], None]:
    def check(name: str, world: World) -> None:
        there = {key: str(world.models / value) for key, value in arguments.items()}
        made = resolved("spacy_misc", name, **there)
        made.load("cpu")
        made.index(["Java", "Mercury", "Atlantis"], None if vector is None else np.eye(3, dtype="f"))
        assert len(made.rank(Query("Java", "A view of Java.", vector), 2)) == shown

    return check


def feature(*columns: str) -> Callable[[str, World], None]:
    def check(name: str, world: World) -> None:
        made, pipe = resolved("spacy_misc", name), pipe_of(world.nlp)
        assert tuple(made.columns) == columns
        mentions = pipe.mentions_of(pipe.entities_to_link(captions(world.nlp, 2)))
        batch = pipe.linking_model.options(mentions, pipe.settings)
        values = made.values(batch, pipe.linking_model, pipe.settings)
        assert [rows.shape for rows in values] == [(len(options.entities), len(columns)) for options in batch]
        assert all(len(rows) and np.isfinite(rows).all() for rows in values)

    return check


def alignment(name: str, world: World) -> None:
    assert resolved("spacy_misc", name, passes=3).passes == 3


def knowledge_base(name: str, world: World) -> None:
    assert "Mercury" in resolved("spacy_misc", name, path=str(world.kb))(world.nlp.vocab)


def hub_knowledge_base(name: str, world: World) -> None:
    """tests/cli/test_hub.py has a Hub that one comes from."""
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set"):
        resolved("spacy_misc", name, repo="org/nobodys-kb")(world.nlp.vocab)


def lookup_kb(name: str, world: World) -> None:
    kb = InMemoryLookupKB(world.nlp.vocab, entity_vector_length=1)
    kb.add_entity("Q1", 3, [0])
    kb.add_alias("Mercury", ["Q1"], [1.0])
    kb.to_disk(world.vit.parent / "lookup")
    indices = {"path": world.vit.parent / "lookup", "folder": world.vit.parent / "made"}
    loader = resolved(
        "spacy_misc",
        name,
        tokenizer=str(world.models / "language_model"),
        **{key: str(path) for key, path in indices.items()},
    )
    assert loader(world.nlp.vocab).entity(0).name == "Mercury"


def image_description(name: str, world: World) -> None:
    with pytest.raises(ValueError, match="text = true"):  # the world's CLIP is loaded without its text tower
        feature("has_image", "image_description")(name, world)


def reader(name: str, world: World) -> None:
    [example] = resolved("spacy_readers", name, path=str(world.corpus), limit=1)(world.nlp)
    assert isinstance(example, Example)
    assert example.predicted.user_data["image"]


def scorer(name: str, world: World) -> None:
    docs = [world.nlp(doc) for doc in captions(world.nlp, 2)]
    scores = resolved("spacy_scorers", name)([Example(doc, doc.copy()) for doc in docs])
    assert scores["nel_micro_f"] in (0, 1)


CALLS: dict[str, Callable[[str, World], None]] = {
    LINKER: linker,
    "spacy_gemel.LinearMapper.v1": mapper,
    "spacy_gemel.CausalLM.v1": language_model,
    "spacy_gemel.OpenCLIP.v1": open_clip,
    "spacy_gemel.HuggingFaceVision.v1": hugging_face_vision,
    "spacy_gemel.NoRetriever.v1": retriever(0),
    "spacy_gemel.RandomRetriever.v1": retriever(2),
    "spacy_gemel.BM25Retriever.v1": retriever(2),
    "spacy_gemel.SentenceTransformerRetriever.v1": retriever(2, name="sentence_encoder"),
    "spacy_gemel.TransformerRetriever.v1": retriever(2, np.ones(3, dtype="f")),
    "spacy_gemel.Alignment.v1": alignment,
    "spacy_gemel.ScoreFeature.v1": feature("score", "behind"),
    "spacy_gemel.NameProbabilityFeature.v1": feature("name_probability"),
    "spacy_gemel.DemonstratedFeature.v1": feature("demonstrated"),
    "spacy_gemel.PriorFeature.v1": feature("prior"),
    "spacy_gemel.SurfaceFeature.v1": feature(
        "is_name", "is_alias", "folded_name", "folded_alias", "mention_words", "name_words", "text_words", "alias_words"
    ),
    "spacy_gemel.NameShareFeature.v1": feature("name_share"),
    "spacy_gemel.LengthFeature.v1": feature("tokens"),
    "spacy_gemel.DescriptionFeature.v1": feature(
        "has_description", "text_description", "mention_description", "description_words"
    ),
    "spacy_gemel.ImageDescriptionFeature.v1": image_description,
    "spacy_gemel.PictureFeature.v1": feature("pictured", "picture"),
    "spacy_gemel.AgreementFeature.v1": feature("agreement", "chain"),
    "spacy_gemel.KBFromDisk.v1": knowledge_base,
    "spacy_gemel.KBFromHub.v1": hub_knowledge_base,
    "spacy_gemel.KBFromLookupKB.v1": lookup_kb,
    "spacy_gemel.MultimodalCorpus.v1": reader,
    "spacy_gemel.linker_scorer.v1": scorer,
}


def test_each_is_called_here() -> None:
    assert set(REGISTERED) == set(CALLS), "a name is registered that this test does not call"


@pytest.mark.parametrize("name", REGISTERED)
def test_it_resolves_and_does_its_work(world: World, name: str) -> None:
    group, where = ENTRY_POINTS[name]
    installed = {(point.group, point.name): point for point in distribution("spacy-gemel").entry_points}
    assert (group, name) in installed, "setup.py has changed since it was installed: pip install -e . again"
    assert installed[group, name].value == where
    assert callable(installed[group, name].load())
    CALLS[name](name, world)


def test_versioned_and_under_our_own_name() -> None:
    for name in REGISTERED:
        assert name == LINKER or name.startswith("spacy_gemel.")
        assert name == LINKER or name.rpartition(".v")[2].isdigit()


def test_the_command() -> None:
    _, where = ENTRY_POINTS["spacy-gemel"]
    [point] = distribution("spacy-gemel").entry_points.select(name="spacy-gemel")
    assert point.value == where
    assert callable(point.load())


def test_the_command_of_spacy() -> None:
    """`spacy gemel COMMAND`, with spaCy's own commands beside it."""
    gemel, whole = (
        subprocess.run([sys.executable, "-m", "spacy", *arguments], capture_output=True, text=True, check=True).stdout
        for arguments in (["gemel", "build-kb", "--help"], ["--help"])
    )
    assert "Usage: python -m spacy gemel build-kb" in gemel
    assert {"gemel", "train", "package"} <= set(whole.split())
