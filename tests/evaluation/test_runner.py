"""A pipeline that answers from a table, measured against numbers worked out by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import spacy
from spacy.tokens import DocBin, Span

from spacy_gemel.evaluation.examples import choose_examples
from spacy_gemel.evaluation.results import mentions_path, read_mentions, write_evaluation
from spacy_gemel.evaluation.runner import EvaluateOptions, evaluate
from spacy_gemel.evaluation.text import metrics_text
from spacy_gemel.pipeline.loaded_pipeline import linker_of, overridden
from tests.evaluation.doubles import TableLinker, pipeline

PLANET, ELEMENT, CARS, CAT, JAVA = "Mercury (planet)", "Mercury (element)", "Jaguar Cars", "Jaguar", "Java"
ANSWERS = {"Mercury": [PLANET, ELEMENT], "Jaguar": [CAT, CARS], "Java": [JAVA], "Hawks": []}
TEXT_ONLY = {"Mercury": [ELEMENT, PLANET], "Jaguar": [CARS], "Java": [JAVA], "Hawks": []}

DOCS = [  # text, whether it has an image, gold of its first word
    ("Mercury rises", True, PLANET),  # right; common, seen
    ("Mercury pours", True, ELEMENT),  # wrong; common, unseen
    ("Jaguar runs", True, CAT),  # right; tail, seen
    ("Jaguar drives", False, CARS),  # right without its image; tail at 10 %, unseen
    ("Java smokes", False, JAVA),  # right; never counted, unseen
    ("Hawks win", True, "NIL"),  # NIL for NIL
    ("Java brews", True, "NIL"),  # an entity for NIL
    ("Jaguar barks", True, "Not in the KB"),
    ("Hawks lose", True, ""),  # not annotated
    ("Nothing here", True, None),  # no mention
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    nlp = spacy.blank("en")
    docs = DocBin(store_user_data=True)
    for number, (text, image, gold) in enumerate(DOCS):
        doc = nlp(text)
        spans = [] if gold is None else [Span(doc, 0, 1, label="ENT", kb_id=gold)]
        doc.set_ents(spans)
        doc.user_data["id"] = f"d{number}"
        if image:
            doc.user_data["image"] = f"images/{number}.jpg"
        docs.add(doc)
    docs.to_disk(tmp_path / "test.spacy")
    return tmp_path / "test.spacy"


def options(**given: object) -> EvaluateOptions:
    return EvaluateOptions(tail_share=0.1, progress=False, **given)  # type: ignore[arg-type]


def test_the_numbers(data: Path) -> None:
    nlp = pipeline(TableLinker(ANSWERS, TEXT_ONLY))
    metrics, results = evaluate(nlp, data, options(), pipeline="here")
    parts = {key: (metrics[key]["n"], metrics[key]["accuracy"]) for key in metrics if "_image" in key}
    assert (metrics["n"], metrics["accuracy"]) == (5, pytest.approx(4 / 5))
    assert metrics["low"] < 0.8 < metrics["high"]
    assert parts == {"with_image": (3, pytest.approx(2 / 3)), "without_image": (2, 1.0), "unreadable_image": (0, None)}
    for key, n, accuracy in [
        ("common", 2, 0.5),
        ("tail", 2, 1.0),
        ("uncounted", 1, 1.0),
        ("seen", 2, 1.0),
        ("unseen", 3, 2 / 3),
        ("nil", 2, 0.5),
    ]:
        assert (metrics[key]["n"], metrics[key]["accuracy"]) == (n, pytest.approx(accuracy)), key
    # NIL was answered once, rightly, and missed once
    assert {key: metrics["nil"][key] for key in "prf"} == {"p": 1.0, "r": 0.5, "f": pytest.approx(2 / 3)}
    assert "NIL: precision 100.0, recall 50.0, F1 66.7" in metrics_text(metrics)
    # 60 + 30 + 8 + 2: the two least counted hold exactly the tenth
    assert (metrics["tail"]["threshold"], metrics["tail"]["entities"]) == (8, 2)
    assert metrics["not_in_kb"] == {"n": 1}
    assert metrics["unannotated"] == {"n": 1}
    assert metrics["mentions_per_second"] > 0
    settings = metrics["settings"]
    assert (settings["pipeline"], settings["use_image"], settings["n_demonstrations"]) == ("here", True, 2)
    assert (settings["threshold"], settings["prior_weight"], settings["labels_discard"]) == (None, 0.0, [])
    first = results[0]
    assert (first.doc, first.start, first.end, first.mention) == ("d0", 0, 7, "Mercury")
    assert (first.gold, first.predicted, first.probability) == (PLANET, PLANET, 0.5)
    assert (first.seen, first.tail, first.image, first.image_path) == (
        True,
        False,
        True,
        str(data.parent / "images" / "0.jpg"),
    )
    assert [c["kb_id"] for c in first.candidates] == [PLANET, ELEMENT]
    assert len(first.demonstrations) == 2
    assert len(results) == 9
    assert "accuracy        80.0  of 5" in metrics_text(metrics)


def test_ablations_are_undone_even_after_an_error(data: Path) -> None:
    linker = TableLinker(ANSWERS, TEXT_ONLY)
    nlp = pipeline(linker)
    changed = options(use_image=False, constrained=False, n_demonstrations=0)
    metrics, results = evaluate(nlp, data, changed)
    assert metrics["accuracy"] == pytest.approx(3 / 5)
    assert [metrics["settings"][key] for key in ("use_image", "constrained", "n_demonstrations")] == [False, False, 0]
    assert metrics["with_image"]["n"] == 3, "the doc has an image, used or not"
    assert not any(result.demonstrations for result in results)
    now = linker.settings
    assert (now.use_image, now.constrained, now.n_demonstrations) == (True, True, 2)
    with pytest.raises(RuntimeError), overridden(linker_of(nlp), use_image=False):
        raise RuntimeError
    assert now.use_image


def test_gold_mentions_whatever_the_ner_would_say(data: Path) -> None:
    nlp = pipeline(TableLinker(ANSWERS, TEXT_ONLY), entities=["Mercury rises"])
    metrics, _ = evaluate(nlp, data, options())
    assert metrics["n"] == 5
    assert nlp.pipe_names == ["entity_ruler", "gemel_linker"]


def test_behind_a_ner(data: Path) -> None:
    nlp = pipeline(TableLinker(ANSWERS, TEXT_ONLY), entities=["Mercury", "Nothing"])
    metrics, _ = evaluate(nlp, data, options(predicted_ents=True))
    assert (metrics["n"], metrics["accuracy"]) == (2, 0.5)
    assert metrics["mention_recall"] == pytest.approx(2 / 9)
    assert metrics["mention_precision"] == pytest.approx(2 / 3)
    assert (metrics["end_to_end"]["n"], metrics["end_to_end"]["accuracy"]) == (5, pytest.approx(1 / 5))
    assert "mention recall 22.2" in metrics_text(metrics)
    with pytest.raises(ValueError, match="needs a pipe that sets entities"):
        evaluate(pipeline(TableLinker(ANSWERS)), data, options(predicted_ents=True))


def test_only_what_the_report_shows_is_explained(data: Path) -> None:
    """Not NIL for NIL, nor a mention without an image beside some that have one."""
    nlp = pipeline(TableLinker(ANSWERS, TEXT_ONLY))
    results = evaluate(nlp, data, options())[1]
    explained = {r.doc: r.explanation for r in results if r.explanation is not None}
    assert [r.doc for r in choose_examples(results)] == [*explained] == ["d0", "d1", "d2"]
    assert explained["d1"]["prompt"] == "Mercury pours"
    assert not any(r.explanation or r.demonstrations for r in evaluate(nlp, data, options(details=False))[1])


def test_limit_counts_docs(data: Path) -> None:
    nlp = pipeline(TableLinker(ANSWERS, TEXT_ONLY))
    assert evaluate(nlp, data, options(limit=2))[0]["n"] == 2


def test_no_linker_and_no_mention(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no gemel_linker among its pipes"):
        evaluate(spacy.blank("en"), data, options())
    DocBin(docs=[spacy.blank("en")("text")]).to_disk(tmp_path / "none.spacy")
    with pytest.raises(ValueError, match="not one mention in 1 docs"):
        evaluate(pipeline(TableLinker(ANSWERS)), tmp_path / "none.spacy", options())


def test_a_pipe_that_takes_gold_mentions_away_is_told_of(data: Path) -> None:
    nlp = pipeline(TableLinker(ANSWERS))

    @spacy.Language.component("take_ents_away")
    def take(doc):
        doc.set_ents([])
        return doc

    nlp.add_pipe("take_ents_away", first=True)
    with pytest.raises(ValueError, match="removed a gold mention"):
        evaluate(nlp, data, options())


def test_files(data: Path, tmp_path: Path) -> None:
    nlp = pipeline(TableLinker(ANSWERS, TEXT_ONLY))
    metrics, results = evaluate(nlp, data, options())
    output = tmp_path / "metrics" / "full.json"
    write_evaluation(metrics, results, output)
    assert json.loads(output.read_text()) == metrics
    assert mentions_path(output) == tmp_path / "metrics" / "full.mentions.jsonl"
    read = read_mentions(mentions_path(output))
    assert read[0].image_path == "../images/0.jpg"
    assert [replace(r, image_path=None) for r in read] == [replace(r, image_path=None) for r in results]
    row = json.loads(mentions_path(output).read_text().splitlines()[0])
    wanted = "doc start end mention gold predicted probability seen tail image candidates demonstrations"
    assert set(wanted.split()) <= set(row)
    assert sorted(path.name for path in output.parent.iterdir()) == ["full.json", "full.mentions.jsonl"]
