"""What a grid comes to: each setting once, what differs only at prediction with one training."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.configs import change
from research.grid.plan import Plan, make_plan
from research.paper import REPORTED, SETTING
from research.runner import by_training
from tests.research.conftest import grid_of

LINKER = "components.gemel_linker"
MODELS = {
    "language_models": {"OPT 1": {"name": "org/opt"}, "OPT-1": {"name": "org/other"}},
    "vision_encoders": {"BEiT": {"@misc": "spacy_gemel.HuggingFaceVision.v1", "name": "org/beit"}},
}


def plan_of(folder: Path, *rows: dict[str, Any], **others: Any) -> Plan:
    named = [{"name": str(number), **row} for number, row in enumerate(rows)]
    return make_plan(grid_of(folder, {"t": {"rows": named}}, **{**MODELS, **others}))


def ids(plan: Plan) -> list[list[str]]:
    return [list(plan.rows["t", number]) for number in range(len(plan.rows))]


def test_rows_that_differ_at_prediction_share_a_training(folder: Path) -> None:
    plan = plan_of(
        folder, {}, {"image": False}, {"constrained": False}, {"n_at_prediction": 3}, {"n": 0}, {"k": 2, "image": False}
    )
    assert ids(plan) == [
        ["full-42"], ["full-42-no-image"], ["full-42-unconstrained"], ["full-42-shown-3"], ["n-0-42"],
        ["k-2-42-no-image"],
    ]  # fmt: skip
    shared = by_training(plan.trials.values())
    assert [(training.id, len(trials)) for training, trials in shared if training] == [
        ("full-42", 4), ("n-0-42", 1), ("k-2-42", 1),
    ]  # fmt: skip
    assert plan.trials["full-42-shown-3"].options == {"n_demonstrations": 3}
    assert plan.trials["full-42-no-image"].options == {"use_image": False}


def test_what_the_config_has_is_no_change(folder: Path) -> None:
    """Its prefix length, demonstrations and retriever, whose path stands otherwise in the grid's file."""
    dense = {"@misc": "spacy_gemel.SentenceTransformerRetriever.v1", "name": "../assets/mini/sentence_encoder"}
    rows = [{"k": 4}, {"n": 8}, {"n_at_prediction": 8}, {"image": True}, {"retriever": "dense"}]
    plan = plan_of(folder, *rows, retrievers={"dense": dense})
    assert ids(plan) == [["full-42"]] * 5


def test_seeds_and_blocks(folder: Path) -> None:
    """The image's absence makes the mapper's seed idle; a block takes the place of the whole one."""
    rows = [{"retriever": "random"}, {"image": False}, {"language_model": "OPT 1"}, {"language_model": "OPT-1"}]
    plan = plan_of(folder, *rows, seeds=[1, 2, 1])
    assert ids(plan)[:2] == [["retriever-random-1", "retriever-random-2"], ["full-1-no-image"]]
    assert len({id for row in ids(plan)[2:] for id in row}) == 4
    training = plan.trials["retriever-random-2"].training
    assert training is not None and training.seed == 2
    block = {"@misc": "spacy_gemel.RandomRetriever.v1", "seed": "${system.seed}"}
    assert training.changes == {f"{LINKER}.retriever": block}
    opt = plan.trials[ids(plan)[2][0]].training
    assert opt is not None
    assert (
        opt.language_model
        == {"@misc": "spacy_gemel.CausalLM.v1", "name": "org/opt"}
        == opt.changes[f"{LINKER}.language_model"]
    )


def test_baselines_and_rows_that_are_not_run(folder: Path) -> None:
    plan = plan_of(folder, {"baseline": "alias"}, {"not_run": "no weights"}, {}, seeds=[1, 2])
    assert ids(plan) == [["baseline-alias"], [], ["full-1", "full-2"]]
    assert [training and training.id for training, _ in by_training(plan.trials.values())] == ["full-1", "full-2", None]


def test_seeds_play_a_part_without_an_image_where_they_choose_the_demonstrations(folder: Path) -> None:
    text = {"image": False}
    fixed = {"@misc": "spacy_gemel.RandomRetriever.v1", "seed": 3}
    rows = [
        {**text, "retriever": "random"},
        {**text, "retriever": "random", "n": 0},
        {**text, "retriever": "fixed"},
        {**text, "retriever": "bm25"},
    ]
    plan = plan_of(folder, *rows, seeds=[1, 2, 3], retrievers={"fixed": fixed})
    assert [len(row) for row in ids(plan)] == [3, 1, 1, 1]
    config = folder / "configs" / "mini.cfg"
    config.write_text(
        config.read_text().replace(
            '@misc = "spacy_gemel.SentenceTransformerRetriever.v1"\nname = "../assets/mini/sentence_encoder"',
            '@misc = "spacy_gemel.RandomRetriever.v1"\nseed = ${system.seed}',
        )
    )
    assert [len(row) for row in ids(plan_of(folder, text, seeds=[1, 2, 3]))] == [3], "the config's own retriever"


def test_what_a_row_says_is_what_is_measured_whatever_the_config_says(folder: Path) -> None:
    """Where the config goes without the trie, or without images, a row that asks for them is not measured so."""
    file = folder / "configs" / "mini.cfg"
    plain, factory = file.read_text(), 'factory = "gemel_linker"\n'
    file.write_text(plain.replace(factory, f"{factory}constrained = false\n"))
    plan = plan_of(folder, {"constrained": True}, {"constrained": False}, {})
    assert ids(plan) == [["full-42-constrained"], ["full-42"], ["full-42"]]
    assert [trial.options for trial in plan.trials.values()] == [{"constrained": True}, {}]
    assert [trial.setting["constrained"] for trial in plan.trials.values()] == [True, False]
    file.write_text(plain.replace(factory, f"{factory}use_image = false\n"))
    with pytest.raises(ValueError, match=r"image is true, but .*mini\.cfg has use_image = false, so that its mapper"):
        plan_of(folder, {"image": True})
    plan = plan_of(folder, {"image": False}, {})
    assert ids(plan) == [["full-42"]] * 2
    assert [trial.options for trial in plan.trials.values()] == [{}]


def test_baselines_with_options_and_seeds(folder: Path) -> None:
    """A baseline that is trained is trained once per seed of the grid, unless it has one."""
    linker = {"kind": "entity_linker", "epochs": 3}
    rows = [
        {"baseline": "entity_linker"},
        {"baseline": linker},
        {"baseline": {**linker, "seed": 7}},
        {"baseline": {"kind": "alias", "ignore_case": True}},
        {"baseline": {"kind": "alias"}},
    ]
    plan = plan_of(folder, *rows, seeds=[1, 2])
    found = [[dict(plan.trials[id].options) for id in row] for row in ids(plan)]
    assert found == [
        [{"seed": 1}, {"seed": 2}],
        [{"epochs": 3, "seed": 1}, {"epochs": 3, "seed": 2}],
        [{"epochs": 3, "seed": 7}],
        [{"ignore_case": True}],
        [{}],
    ]
    assert ids(plan)[0] == ["baseline-entity_linker-1", "baseline-entity_linker-2"]
    assert ids(plan)[4] == ["baseline-alias"]
    assert len(plan.trials) == 7


def test_the_whole_linker_is_no_setting(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"components\.gemel_linker is the whole linker"):
        plan_of(folder, {"set": {LINKER: {"factory": "gemel_linker"}}})
    other = {"components.ner": {"factory": "ner"}}
    [trial] = plan_of(folder, {"set": other}).trials.values()
    assert trial.training is not None and trial.training.changes == other


ROWS = st.fixed_dictionaries(
    {},
    optional={
        "k": st.sampled_from([1, 4, 8]),
        "n": st.sampled_from([0, 4, 8]),
        "n_at_prediction": st.sampled_from([0, 4, 8]),
        "image": st.booleans(),
        "constrained": st.booleans(),
        "retriever": st.sampled_from(["bm25", "none", "random"]),
        "language_model": st.sampled_from(["OPT 1", "OPT-1"]),
        "set": st.sampled_from(
            [{"training.max_steps": 5}, {f"{LINKER}.name_end": "eos"}, {"training.max_steps": 1280}]
        ),
    },
)


@settings(max_examples=25)
@given(st.lists(ROWS, min_size=2, max_size=4))
def test_two_rows_are_one_trial_exactly_where_they_come_to_the_same(folder: Path, rows: list[dict[str, Any]]) -> None:
    plan = plan_of(folder, *rows)
    for first in range(len(rows)):
        for second in range(first):
            same = effect(plan, rows[first]) == effect(plan, rows[second])
            assert (ids(plan)[first] == ids(plan)[second]) == same, (rows[first], rows[second])


def effect(plan: Plan, row: dict[str, Any]) -> list[Any]:
    """What a row comes to, told another way: the values of all that rows can change."""
    message = {
        "k": 4,
        "n": 8,
        "retriever": "dense",
        "language_model": "mini",
        "image": True,
        "constrained": True,
        **row,
    }
    steps = {"training.max_steps": 1280, f"{LINKER}.name_end": "newline", **message.pop("set", {})}
    return [{"n_at_prediction": message["n"], **message}, steps]


def test_a_change_needs_its_section() -> None:
    config = {"a": {"b": {"c": 1, "d": 2}}}
    change(config, {"a.b": {"c": 3}, "a.e": 4})
    assert config == {"a": {"b": {"c": 3}, "e": 4}}
    with pytest.raises(ValueError, match=r"there is no section \[a.x\] in the config to set y in"):
        change(config, {"a.x.y": 1})


def test_the_papers_settings() -> None:
    """A figure belongs to a row only where models and settings are the paper's."""
    full = {
        **SETTING, "language_model": "meta-llama/Llama-2-7b-hf", "retriever": "princeton-nlp/sup-simcse-roberta-large",
    }  # fmt: skip
    assert REPORTED["full"].is_setting(full)
    assert not REPORTED["no-image"].is_setting(full)
    assert REPORTED["no-image"].is_setting({**full, "image": False})
    assert REPORTED["no-demonstrations"].is_setting({**full, "n": 0, "retriever": "spacy_gemel.NoRetriever.v1"})
    assert REPORTED["opt-6.7b"].is_setting({**full, "language_model": "facebook/opt-6.7b"})
    for name, value in (("k", 2), ("n", 8), ("name_end", "newline"), ("constrained", False), ("language_model", "x/y")):
        assert not REPORTED["full"].is_setting({**full, name: value}), name
    assert not REPORTED["gpt-3.5"].is_setting(full)
    encoder = {**full, "vision_encoder": "microsoft/beit-large-patch16-224"}
    assert [name for name, figure in REPORTED.items() if figure.is_setting(encoder)] == ["beit-large"]
