"""A row is what its name and its `paper` say; and the paper's figure stands beside no other setting."""

from pathlib import Path
from typing import Any

import pytest
from thinc.api import Config

from research.grid.grid import read_grid
from research.grid.page import markdown
from research.grid.plan import Plan, make_plan
from research.grid.tables import Experiments
from research.paper import REPORTED
from tests.research.conftest import ROOT, FakeCommands, grid_of
from tests.research.grid.test_page import cells

LINKER = "components.gemel_linker"
COPY = {"name": "mirror/opt-6.7b"}
SIMCSE = "princeton-nlp/sup-simcse-roberta-large"
MODELS = {
    "language_models": {"OPT": {"name": "org/opt"}, "Llama-2-7B": {"name": "../weights/llm"}, "copy": COPY},
    "vision_encoders": {"BEiT": {"@misc": "spacy_gemel.HuggingFaceVision.v1", "name": "org/beit"}},
}


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"name": "Llama-2-7B"}, "t, Llama-2-7B: its name says Llama-2-7B, but its language model is ../assets/mini"),
        ({"name": "mine, llama-2-7b"}, "its name says Llama-2-7B"),
        ({"name": "CLIP ViT-L/14, frozen"}, "its name says CLIP ViT-L/14, but its vision encoder is ../assets/mini"),
        ({"name": "SimCSE", "retriever": "bm25"}, "its name says SimCSE, but its retriever is spacy_gemel.BM25"),
        ({"name": "OPT"}, "its name says OPT, but its language model is"),
        ({"name": "text, with BEiT and OPT", "language_model": "OPT"}, "its name says BEiT"),
        ({"name": "Llama-2-7B", "baseline": "alias"}, "its name says Llama-2-7B, but its language model is none"),
        ({"name": "a", "paper": "llama-2-7b"}, "paper is llama-2-7b, but language model is '../assets/mini"),
        (
            {"name": "a", "paper": "opt-6.7b", "language_model": "OPT"},
            "paper is opt-6.7b, but language model is 'org/opt'",
        ),
        ({"name": "a", "paper": "no-image"}, "paper is no-image, but image is True"),
        ({"name": "a", "paper": "bm25", "retriever": "random"}, "paper is bm25, but retriever is 'spacy_gemel.Random"),
        ({"name": "a", "paper": "gpt-3.5"}, "no setting of this package gives it"),
    ],
)
def test_a_row_that_is_not_what_it_says_is_refused(folder: Path, row: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=r"grid\.yml: t, .*give the row what it claims") as raised:
        make_plan(grid_of(folder, {"t": {"rows": [row]}}, **MODELS))
    assert says in str(raised.value)


@pytest.mark.parametrize(
    "row",
    [
        {"name": "Llama-2-7B", "language_model": "Llama-2-7B", "paper": "llama-2-7b"},
        {"name": "OPT-6.7B, a copy", "language_model": "copy", "paper": "opt-6.7b"},
        {"name": "Llama-2-7B", "not_run": "no weights here", "paper": "llama-2-7b"},
        {"name": "OPT, BEiT", "language_model": "OPT", "vision_encoder": "BEiT"},
        {"name": "Options", "paper": "full"},
        {"name": "none", "n": 0, "paper": "no-demonstrations"},
        {"name": "entity_linker, SimCSE", "baseline": {"kind": "entity_linker", "encoder": SIMCSE}},
        {"name": "without examples at prediction", "n_at_prediction": 0, "paper": "no-demonstrations"},
    ],
)
def test_a_row_that_is_what_it_says_is_run(folder: Path, row: dict[str, Any]) -> None:
    """By the grid's own names of models, or by those that the models bear."""
    assert make_plan(grid_of(folder, {"t": {"rows": [row]}}, **MODELS)).rows


def papers_plan(folder: Path, *rows: dict[str, Any], **models: Any) -> Plan:
    """Of rows on the paper's own config."""
    (folder / "configs" / "paper.cfg").write_text((ROOT / "configs" / "paper.cfg").read_text())
    named = [{"name": str(number), **row} for number, row in enumerate(rows)]
    return make_plan(grid_of(folder, {"t": {"rows": named}}, config="paper.cfg", **models))


def is_full(plan: Plan, row: int = 0) -> bool:
    return REPORTED["full"].is_setting(plan.trials[plan.rows["t", row][0]].setting)


def test_every_row_of_the_papers_grid_is_in_the_papers_setting() -> None:
    """But for common and tail, which nothing is comparable with."""
    grid = read_grid(ROOT / "configs" / "experiments-paper.yml")
    plan = make_plan(grid)
    found = {}
    for table in grid.tables:
        for number, row in enumerate(table.rows):
            for name in row.paper.values():
                if not row.not_run:
                    found[name] = REPORTED[name].is_setting(plan.trials[plan.rows[table.id, number][0]].setting)
    assert found.pop("common") is found.pop("tail") is False
    assert found == dict.fromkeys(REPORTED.keys() - {"common", "tail", "gpt-3.5"}, True)


@pytest.mark.parametrize(
    "setting",
    [
        {f"{LINKER}.prior_weight": 0.3},
        {f"{LINKER}.beam_size": 1},
        {f"{LINKER}.n_training_demonstrations": 0},
        {f"{LINKER}.threshold": 0.5},
        {f"{LINKER}.context": "window"},
        {f"{LINKER}.language_model.quantization": "4bit"},
        {f"{LINKER}.language_model.bos": True},
        {f"{LINKER}.vision_encoder.projection": True},
        {f"{LINKER}.retriever.pooling": "mean"},
        {"training.max_steps": 20},
        {"training.max_epochs": 1},
        {"training.batcher.size": 4},
        {"training.optimizer.L2": 0.0},
        {"training.accumulate_gradient": 4},
        {"corpora.train.limit": 100},
    ],
)
def test_what_changes_results_is_another_setting(folder: Path, setting: dict[str, Any]) -> None:
    plan = papers_plan(folder, {}, {"set": setting})
    assert is_full(plan, 0) and not is_full(plan, 1)
    [message] = plan.trials[plan.rows["t", 1][0]].setting["others"].items()
    assert message[0] == next(iter(setting)).removeprefix(f"{LINKER}.")


@pytest.mark.parametrize(
    "setting",
    [
        {f"{LINKER}.batch_tokens": 1024},
        {f"{LINKER}.beam_size": 5},
        {f"{LINKER}.n_candidates": 5},
        {f"{LINKER}.language_model.dtype": "float16"},
        {f"{LINKER}.retriever.pooling": None},
        {"training.optimizer.learn_rate": 0.01},
    ],
)
def test_what_does_not_is_the_papers(folder: Path, setting: dict[str, Any]) -> None:
    assert is_full(papers_plan(folder, {"set": setting}))


def test_a_setting_that_the_config_leaves_out_has_its_default(folder: Path) -> None:
    config = Config().from_disk(ROOT / "configs" / "paper.cfg", interpolate=False)
    for name in ("beam_size", "threshold", "language_model", "vision_encoder", "model"):
        del config["components"]["gemel_linker"][name]
    config["training"]["optimizer"].pop("beta1")
    config.to_disk(folder / "configs" / "left-out.cfg", interpolate=False)
    plan = make_plan(grid_of(folder, {"t": {"rows": [{"name": "a"}]}}, config="left-out.cfg"))
    assert is_full(plan)
    for name in ("patience", "max_epochs"):
        del config["training"][name]
    config.to_disk(folder / "configs" / "left-out.cfg", interpolate=False)
    plan = make_plan(grid_of(folder, {"t": {"rows": [{"name": "a"}]}}, config="left-out.cfg"))
    assert not is_full(plan)
    assert plan.trials["full-42"].setting["others"] == {"training.patience": 1600, "training.max_epochs": 0}


@pytest.mark.parametrize(
    ("section", "block", "same"),
    [
        ("language_models", {"name": "meta-llama/Llama-2-7b-hf"}, True),
        ("language_models", {"name": "../weights/Llama-2-7b-hf"}, True),
        ("language_models", {"name": "meta-llama/Llama-2-7b-chat-hf"}, False),
        ("language_models", {"name": "TheBloke/Llama-2-7B-GPTQ"}, False),
        ("language_models", {"name": "someone/Llama-2-7b-hf"}, False),
        (
            "vision_encoders",
            {"@misc": "spacy_gemel.OpenCLIP.v1", "name": "ViT-L-14-quickgelu", "pretrained": "dfn"},
            False,
        ),
        # spaCy fills in `pretrained` of the default, which is of the same function
        ("vision_encoders", {"@misc": "spacy_gemel.OpenCLIP.v1", "name": "ViT-L-14-quickgelu"}, True),
        (
            "vision_encoders",
            {"@misc": "spacy_gemel.HuggingFaceVision.v1", "name": "openai/clip-vit-large-patch14"},
            True,
        ),
        (
            "vision_encoders",
            {"@misc": "spacy_gemel.HuggingFaceVision.v1", "name": "openai/clip-vit-large-patch14-336"},
            False,
        ),
    ],
)
def test_models_go_by_their_whole_names(folder: Path, section: str, block: dict[str, Any], same: bool) -> None:
    axis = section.removesuffix("s")
    plan = papers_plan(folder, {axis: "one"}, **{section: {"one": block}})
    assert is_full(plan) == same
    beit = {"@misc": "spacy_gemel.HuggingFaceVision.v1", "name": "microsoft/beit-large-finetuned-ade-640-640"}
    fine = papers_plan(folder, {"vision_encoder": "x"}, vision_encoders={"x": beit})
    assert not REPORTED["beit-large"].is_setting(fine.trials[fine.rows["t", 0][0]].setting)


def test_an_update_is_as_large_as_the_data_set_has_it(folder: Path) -> None:
    """spaCy's batchers count docs: how many hold 16 mentions is another number on WikiMEL."""
    size = {"training.batcher.size": 14}
    diverse = papers_plan(folder, {}, {"set": size}, dataset="WikiDiverse")
    mel = papers_plan(folder, {}, {"set": size}, dataset="WikiMEL")
    assert [is_full(plan, row) for plan in (diverse, mel) for row in (0, 1)] == [True, False, False, True]


def test_fewer_demonstrations_to_choose_from_are_another_setting_without_images_too(folder: Path) -> None:
    rows = [{"image": False, "set": {f"corpora.{split}.limit": 100}} for split in ("train", "dev")]
    plan = papers_plan(folder, *rows)
    settings = [plan.trials[plan.rows["t", number][0]].setting for number in (0, 1)]
    assert [REPORTED["no-image"].is_setting(setting) for setting in settings] == [False, True]


def test_demonstrations_at_prediction_alone_are_not_those_of_the_training(folder: Path) -> None:
    plan = papers_plan(folder, {"n_at_prediction": 0}, {"n": 0}, {"image": False}, {"image": False, "k": 8})
    settings = [plan.trials[plan.rows["t", number][0]].setting for number in range(4)]
    assert [REPORTED["no-demonstrations"].is_setting(setting) for setting in settings] == [False, True, False, False]
    assert [REPORTED["no-image"].is_setting(setting) for setting in settings] == [False, False, True, True]


def test_a_try_and_the_tail_are_comparable_with_nothing(folder: Path, commands: FakeCommands) -> None:
    (folder / "configs" / "paper.cfg").write_text((ROOT / "configs" / "paper.cfg").read_text())
    tables = {
        "whole": {"rows": [{"name": "full", "paper": "full"}]},
        "parts": {
            "rows": [{"name": "full", "paper": {"common": "common", "tail": "tail"}}],
            "parts": ["common", "tail"],
        },
    }
    grid = grid_of(folder, tables, config="paper.cfg", dataset="wikidiverse")
    for more, same in (({}, True), ({"steps": 3}, False), ({"limit": 3}, False)):
        found = Experiments(grid, folder / "out", **more).run(grid.tables)
        assert found["tables"][0]["rows"][0]["paper"]["same_setting"] is same
        assert [row["paper"]["same_setting"] for row in found["tables"][1]["rows"]] == [False, False]
        lines = [cells(line)[-2:] for line in markdown(found).splitlines() if line.startswith("| full")]
        assert lines[0] == (["86.3", ""] if same else ["", "86.3 / 82.6"])
        assert lines[1:] == [["", "87.4 / 82.7 (not comparable)"], ["", "57.5 / 75.2 (not comparable)"]]
