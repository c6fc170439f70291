"""The cells on real text, with random models and a few sentences: their figures mean nothing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.tokens import Doc
from typer.testing import CliRunner

from research.__main__ import app
from research.real import cells as cells_module
from research.real import decision as decision_module
from research.real import exact as exact_module
from research.real import run as run_module
from research.real import text
from research.real.answers import difference, end_to_end_figures, figures
from research.real.cells import CELLS, Cell, Workspace, choose
from research.real.decision import run_decision
from research.real.exact import run_exact
from research.real.ner import train_ner
from research.real.run import run_real
from spacy_gemel.data.reader import read_docs
from tests.tiny import NAMES

IDS = {name: f"Q{index}" for index, name in enumerate(NAMES)}
FEW = [cell for cell in CELLS if cell.id in ("wikidiverse.text_only", "wikidiverse.fp32", "wikidiverse.none")]


def row(number: int, name: str, **rest: Any) -> dict[str, Any]:
    mention = name.split(" (")[0]
    return {
        "id": number,
        "sentence": f"Photo {number} of {mention}.",
        "mention": [mention],
        "answer": [IDS[name]],
        **rest,
    }


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All files that the cells need; samples of 6 mentions, parts of 4."""
    for name, value in (("SAMPLE", 6), ("PART", 4), ("HELD_OUT", 4)):
        monkeypatch.setattr(text, name, value)
    folder = tmp_path / "data"
    files: dict[str, Any] = {
        "wikidiverse/train.json": [row(number, NAMES[number % 8]) for number in range(24)],
        "wikidiverse/val.json": [row(100 + number, NAMES[number % 10]) for number in range(10)],
    }
    for path in ("wikimel/Wikidata-MEL.json", "richpediamel/Richpedia-MEL.json"):
        rows = [row(number, name) for number, name in enumerate(NAMES)]
        files[path] = {str(each["id"]): each for each in [*rows, {**rows[3], "id": 300}, {**rows[5], "id": 500}]}
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps(content))
    (folder / "kb").mkdir()
    rows_of_kb = [json.dumps({"id": IDS[name], "name": name}) for name in NAMES]
    (folder / "kb" / "entities.jsonl").write_text("\n".join(rows_of_kb))
    return folder


@pytest.fixture
def run(data: Path, models: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`run_real` in a folder; returns the file that it leaves."""

    def run(*names: str, cells: Any = FEW, **options: Any) -> dict[str, Any]:
        output = tmp_path / "real.json"
        run_real(data, models, names, cells=cells, work=tmp_path / "work", output=output, root=tmp_path, **options)
        return json.loads(output.read_text())

    return run


@pytest.fixture
def linked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts that are linked, in order."""
    chunks: list[str] = []
    link = cells_module.link_gold_mentions

    def counting(nlp: Any, path: Path) -> Any:
        chunks.append(path.stem)
        return link(nlp, path)

    monkeypatch.setattr(cells_module, "link_gold_mentions", counting)
    return chunks


def test_each_cell_is_measured_once(run: Callable[..., dict[str, Any]], linked: list[str]) -> None:
    names = ("text_only", "none", "fp32", "eos", "decision")
    some = [cell for cell in CELLS if cell.id in {f"wikidiverse.{name}" for name in names} | {"wikimel.random"}]
    result = run(cells=some)
    assert result["missing"] == []
    wikidiverse = result["wikidiverse"]
    for name in names:
        cell = wikidiverse[name]
        assert cell["n"] == cell["seen"]["n"] + cell["unseen"]["n"] == 10
        low, high = cell["interval"]
        assert 0 <= low <= cell["accuracy"] <= high <= 1
    assert (wikidiverse["text_only"]["seen"]["n"], wikidiverse["text_only"]["new_texts"]["n"]) == (8, 10)
    assert wikidiverse["none"]["gold_not_shown"]["n"] == 10
    assert wikidiverse["text_only"]["gold_shown"]["n"] > 0
    assert wikidiverse["n_0"] == {**wikidiverse["none"], "same_as": "none"}
    assert wikidiverse["decision"]["fitted_on_mentions"] == 4
    assert wikidiverse["decision"]["decision"]["weights"].keys() >= {"score", "prior", "name_share", "text_description"}
    names_of_pairs = {f"text_only - {name}" for name in ("none", "eos", "decision", "fp32")}
    assert wikidiverse["differences"].keys() == names_of_pairs
    assert wikidiverse["differences"]["text_only - none"]["paper_points"] == 6.1
    assert result["wikimel"]["random"]["n"] == 6
    assert result["wikimel"]["data"] == {"asked_docs": 6, "asked_mentions": 6} | {
        name: value for name, value in result["wikimel"]["data"].items() if name.startswith("shown")
    }
    assert result["made_by_other_code"] == []
    linked.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "code_digest", lambda: "changed since")
        assert run(cells=some)["made_by_other_code"] == [cell.id for cell in some]
    assert run(cells=some) | {"machine": None} == result | {"machine": None}
    assert linked == []
    run("wikidiverse.none", cells=some, fresh=True)
    assert linked == ["000", "001", "002"]


def test_goes_on_where_it_stopped(
    run: Callable[..., dict[str, Any]], linked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    link = cells_module.link_gold_mentions

    def stops(nlp: Any, path: Path) -> Any:
        if path.stem == "001":
            raise KeyboardInterrupt
        return link(nlp, path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(cells_module, "link_gold_mentions", stops)
        run("wikidiverse.none")
    assert linked == ["000"]
    result = run("wikidiverse.none")
    assert linked == ["000", "001", "002"]
    assert result["missing"] == ["wikidiverse.text_only", "wikidiverse.fp32"]


def test_what_other_experiments_left_stays(
    run: Callable[..., dict[str, Any]], linked: list[str], tmp_path: Path, data: Path
) -> None:
    rest = {"drawings": {"full": {"accuracy": 0.5}}, "speed": {"bf16_over_fp32": 1.7}}
    (tmp_path / "real.json").write_text(json.dumps(rest))
    first = run("wikidiverse.none")
    assert (first["drawings"], first["speed"]) == (rest["drawings"], rest["speed"])
    # measured elsewhere, of the same inputs
    shutil.rmtree(tmp_path / "work" / "cells")
    second = run("wikidiverse.text_only")
    assert second["wikidiverse"]["none"] == first["wikidiverse"]["none"]
    assert second["missing"] == ["wikidiverse.fp32"]
    # of other inputs
    val = json.loads((data / "wikidiverse" / "val.json").read_text())
    (data / "wikidiverse" / "val.json").write_text(json.dumps(val[:-1]))
    assert run("wikidiverse.text_only")["missing"] == ["wikidiverse.none", "wikidiverse.fp32"]


def test_takes_in_what_was_measured_elsewhere(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    speed = {"bf16_over_fp32": {"median": 2.5}, "same_best_bf16": 0.75, "compared": 8}
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "benchmarks" / "results" / "linking-real.json").write_text(json.dumps(speed))
    for name, right in (("full", (True, True, True, False)), ("no-image", (True, False, False, False))):
        rows = [
            {"doc": f"d{n}", "start": 0, "end": 3, "mention": "bat", "gold": "g", "predicted": "g" if hit else "h"}
            | {"probability": 0.5, "seen": True, "tail": None, "image": True, "in_kb": True}
            for n, hit in enumerate(right)
        ]
        file = tmp_path / "metrics" / "real" / f"{name}.mentions.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    result = run("wikidiverse.none")
    assert result["speed"] == {"bf16_over_fp32": 2.5, "bf16_same_best": 0.75, "bf16_same_best_n": 8}
    drawings = result["drawings"]
    assert [drawings[name]["accuracy"] for name in ("full", "no_image")] == [0.75, 0.25]
    assert (drawings["full"]["n"], drawings["full - no_image"]["difference"]) == (4, 0.5)


def test_beams_beside_the_exact_search(
    data: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "exact.json"
    monkeypatch.setattr(exact_module, "PARTS", 2)
    result = run_exact(data, models, 2, work=tmp_path / "work", output=output)
    assert json.loads(output.read_text()) == result
    assert result["mentions"] == 8
    assert result["exact"]["certified"] == 1
    shares = [*result["exact"]["certified_within_tokens"].values()]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert result["exact"]["passes_with_exact_tokens"]["mean"] == pytest.approx(result["exact"]["passes"]["mean"])
    for beams in (1, 5, 10):
        way = result[f"beam_{beams}"]
        assert way["misses"]["of"] == 8
        assert way["misses"]["worse_by_0.01"] <= way["misses"]["another_name"] <= 1
        assert way["misses"]["worse_by"].get("mean", 1) > 0
        difference = result[f"exact - beam_{beams}"]["difference"]
        assert difference == pytest.approx(result["exact"]["accuracy"] - way["accuracy"])
    assert result["exact"]["passes"]["mean"] >= result["beam_5"]["passes"]["mean"]
    monkeypatch.setattr(exact_module, "search_mentions", None)  # cached
    assert run_exact(data, models, 1, work=tmp_path / "work", output=output)["mentions"] == 4
    assert json.loads(output.read_text()) == result  # a try writes nothing


def texts_of(path: Path) -> list[str]:
    return [doc.text for doc in read_docs(path, spacy.blank("en").vocab)]


def test_what_is_asked_is_never_shown(data: Path, models: Path, tmp_path: Path) -> None:
    corpus = Workspace(data, models, tmp_path / "work").corpus("wikimel")
    asked, pool = [each for path in corpus.chunks for each in texts_of(path)], texts_of(corpus.pool)
    assert len(asked) == 6
    assert not {*asked} & {*pool}  # nor the same sentence under another id
    assert {*asked} | {*pool} == {row(number, name)["sentence"] for number, name in enumerate(NAMES)}
    held_out, rest = texts_of(corpus.held_out), texts_of(corpus.rest)
    assert len(held_out) == 4
    assert {*held_out} | {*rest} == {*pool}
    assert not {*held_out} & {*rest}
    again = Workspace(data, models, tmp_path / "again").corpus("wikimel")
    assert [each for path in again.chunks for each in texts_of(path)] == asked


def test_end_to_end_counts_mentions_and_links(
    run: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(corpus: Path, folder: Path) -> None:
        nlp = spacy.blank("en")
        ruler: Any = nlp.add_pipe("entity_ruler")
        ruler.add_patterns([{"label": "ENT", "pattern": word} for word in ("Mercury", "Photo")])
        nlp.to_disk(folder / "model-best")

    monkeypatch.setattr(cells_module, "train_ner", train)
    found = run(cells=[cell for cell in CELLS if cell.id == "wikidiverse.end_to_end"])["wikidiverse"]["end_to_end"]
    # of ten gold mentions three are Mercury and nothing else; Photo is in every text, Mercury also in Mercury Records
    assert (found["texts"], found["gold"], found["predicted"]) == (10, 10, 14)
    mentions, links = found["mentions"], found["links"]
    assert mentions["precision"]["value"] == pytest.approx(3 / 14)
    assert mentions["recall"]["value"] == pytest.approx(0.3)
    assert mentions["f1"]["value"] == pytest.approx(6 / 24)
    assert mentions["f1"]["interval"][0] < 0.25 < mentions["f1"]["interval"][1]
    assert links["f1"]["value"] <= mentions["f1"]["value"]


def answer(doc: str, predicted: str, name: str = "a", **rest: Any) -> dict[str, Any]:
    flags = {"seen": True, "found": True, "shown": False, "new_text": True}
    return {"doc": doc, "start": 0, "end": 1, "gold": "Q1", "predicted": predicted, "name": name, **flags, **rest}


def test_figures_of_rows() -> None:
    first = [answer("1", "Q1"), answer("2", "Q1", seen=False), answer("3", "Q2", found=False), answer("4", "Q1")]
    result = figures(first)
    assert (result["n"], result["accuracy"], result["gold_among_candidates"]) == (4, 0.75, 0.75)
    assert (result["seen"]["n"], result["unseen"]["accuracy"]) == (3, 1.0)
    assert "gold_shown" not in result
    second = [answer("3", "Q1", "b"), answer("1", "Q2")]  # a part of the mentions, in another order
    assert difference(first, second)["difference"] == 0
    rows = [{"doc": "1", "gold": 2, "predicted": 1, "mentions": 1, "links": 1}]
    assert end_to_end_figures(rows)["links"]["recall"] == {"value": 0.5, "interval": [0.5, 0.5]}


def test_cells_by_name() -> None:
    assert choose(()) == [*CELLS]
    assert {cell.dataset for cell in choose(["wikimel", "wikidiverse.eos"])} == {"wikidiverse", "wikimel"}
    assert len(choose(["wikimel"])) == 4
    with pytest.raises(ValueError, match=r"no cell wikidiverse\.all: give a data set or one of wikidiverse\.text_only"):
        choose(["wikidiverse.all"])


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("models/language_model", "language_model: no model there .*spacy project run real-models"),
        ("data/wikidiverse/val.json", r"val\.json: no such file; --data is a folder with kb/"),
    ],
)
def test_missing_files_are_one_error(missing: str, message: str, data: Path, models: Path, tmp_path: Path) -> None:
    shutil.copytree(models, tmp_path / "models")
    path = tmp_path / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    words = ["real", "--data", str(data), "--models", str(tmp_path / "models"), "--cells", "wikidiverse.eos"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1
    [line] = result.output.splitlines()
    assert line.startswith("error: ")
    with pytest.raises(ValueError, match=message):
        Workspace(data, tmp_path / "models", tmp_path / "work").check([Cell("wikidiverse", "eos")])


@pytest.mark.slow
def test_the_ner_learns_the_mentions(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    docs: list[Doc] = []
    for number in range(120):
        doc = nlp(f"Photo {number} of Mercury near the {'river' if number % 2 else 'road'}.")
        doc.set_ents([doc.char_span(doc.text.index("Mercury"), doc.text.index(" near"), label="ENT", kb_id="Q0")])
        docs.append(doc)
    text.write_docs(docs, tmp_path / "train.spacy")
    (tmp_path / "ner").mkdir()
    train_ner(tmp_path / "train.spacy", tmp_path / "ner", steps=40)
    [ent] = spacy.load(tmp_path / "ner" / "model-best")("Photo 500 of Mercury near the road.").ents
    assert (ent.text, ent.kb_id_) == ("Mercury", "")


def test_the_decision_with_and_without_labels(
    data: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"id": IDS[name], "name": name, "description": f"the {n}th of them"} for n, name in enumerate(NAMES)]
    (data / "kb" / "entities.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr(decision_module, "WEAK_DEV", 0.5)  # few texts: a tenth may be none
    monkeypatch.setattr(decision_module, "FEW", 2)
    names, output = ("wikidiverse", "wikimel"), tmp_path / "decision.json"

    def run() -> dict[str, Any]:
        return run_decision(data, models, names, work=tmp_path / "work", output=output, root=tmp_path)

    result = run()
    assert json.loads(output.read_text()) == result
    assert result["wikidiverse"]["n"] == 10
    assert result["wikidiverse"]["score_and_prior"]["n"] == 10
    assert result["wikimel"]["fitted_on"] == "wikidiverse"
    assert 0 <= result["nil"]["ece_after"] <= 1
    assert result["made_siblings"]["n"] > 0
    unlabelled = result["unlabelled"]
    assert unlabelled["n"] == unlabelled["with_labels"]["decision"]["n"] == 8
    assert unlabelled["weak_mentions_fitted_on"] > 0
    lost = unlabelled["with_labels"]["decision"]["accuracy"] - unlabelled["accuracy"]
    assert unlabelled["with_labels"]["lost_without"]["difference"] == pytest.approx(lost)
    monkeypatch.setattr(decision_module, "collect_cases", None)  # all is cached
    assert run() | {"machine": None} == result | {"machine": None}
