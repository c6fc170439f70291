"""The text and the training of research/wikidiverse, and how it counts; its data lie outside the repo."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from research.wikidiverse import language_model as training
from research.wikidiverse.measure import Answers
from research.wikidiverse.text import (
    ANSWER,
    DEMONSTRATION,
    EOS,
    NEIGHBOURS,
    OTHER,
    UNKNOWABLE,
    EntityText,
    Lesson,
    Query,
    TextMaker,
    bare_name,
    make_mention,
    split,
    train_tokenizer,
    words_in_front,
)
from spacy_gemel.linking.prompt import demonstration_text
from spacy_gemel.models.tokenizer import NameTokenizer

NAMES = [
    f"{first} {last}" for first in ("Ada", "Carl", "Grace", "Kurt") for last in ("Hopper", "Gauss", "Gödel", "Noether")
]
EXAMPLES = [
    Query(f"President {name} waves to the crowd {index}.", f"President {name}", name, f"Q{index}")
    for index, name in enumerate(NAMES)
]
ENTITIES = [EntityText(f"{name} (person)", f"somebody called {name}", (name.split()[0],)) for name in NAMES]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer([*NAMES, *(query.text for query in EXAMPLES), *(entity.description for entity in ENTITIES)])


@pytest.fixture(scope="module")
def maker(tokenizer: Any) -> TextMaker:
    near = np.array([[(index + step) % len(NAMES) for step in range(1, NEIGHBOURS + 1)] for index in range(len(NAMES))])
    eos = tokenizer.convert_tokens_to_ids(EOS)
    return TextMaker(tokenizer.backend_tokenizer, eos, EXAMPLES, ENTITIES, near, near)


LESSONS = (
    Lesson("lines", 2, lines=1.0, questions=0.0),
    Lesson("short", 4, lines=0.0, questions=1.0),
    Lesson("prompts", 6, lines=0.1, questions=0.1),
)


def test_the_linker_tokenises_as_the_text_was_made(tokenizer: Any, maker: TextMaker) -> None:
    ours = NameTokenizer(tokenizer)
    for query in EXAMPLES:
        [whole] = ours.encode([demonstration_text(query.text, query.mention, query.name)])
        [name] = ours.encode([query.name])
        assert whole == maker.encode(demonstration_text(query.text, query.mention, query.name))
        assert whole[-len(name) - 1 :] == [*name, ours.end_id("newline")]
        assert ours.decode(name) == query.name


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_answers_are_names_with_their_newline(lesson: Lesson, maker: TextMaker, tokenizer: Any) -> None:
    ids, weights = maker.rows(lesson, 7, 0, 6, 200)
    again, _ = maker.rows(lesson, 7, 3, 3, 200)
    assert (again == ids[3:]).all()  # a run that starts again reads on where it stopped
    assert set(np.unique(weights)) <= {np.float32(value) for value in (0.0, ANSWER, DEMONSTRATION, UNKNOWABLE, OTHER)}
    known = {*NAMES, *(entity.name for entity in ENTITIES)}
    answers = 0
    for row, weight in zip(ids, weights, strict=True):
        inside = np.isin(weight, np.float32([ANSWER, DEMONSTRATION]))
        edges = np.flatnonzero(np.diff(np.concatenate([[False], inside])))
        for start, end in zip(edges[::2], edges[1::2], strict=False):
            answer = tokenizer.decode(row[start:end].tolist())
            assert answer.endswith("\n")
            assert answer.strip() in known
            answers += 1
    assert answers > 10


def test_forms(maker: TextMaker) -> None:
    assert bare_name("Mercury (planet)") == "Mercury"
    assert bare_name("Paris, Texas") == "Paris"
    assert bare_name("(1) Ceres") == "(1) Ceres"
    assert words_in_front(EXAMPLES) == ["President"] * len(EXAMPLES)
    rng = np.random.default_rng(0)
    made = {make_mention(ENTITIES[0], ["President"], rng) for _ in range(300)}
    assert {"Ada Hopper", "Ada", "Hopper", "President Ada Hopper", "ada hopper"} <= made
    assert "" not in made


def test_no_text_is_on_both_sides() -> None:
    docs = [[EXAMPLES[0], EXAMPLES[1]]] + [[query] for query in EXAMPLES * 20]
    train, held_out = split(docs)
    assert len(train) + len(held_out) == sum(map(len, docs))
    assert not {query.text for query in train} & {query.text for query in held_out}


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="the benchmark, no part of the package, needs torch 2.9")
def test_a_training_goes_on_where_it_stopped(
    maker: TextMaker, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_EVERY", 3)
    monkeypatch.setattr(training.torch, "compile", lambda model: model)
    course = training.Course(
        hidden=32, layers=1, heads=2, feed_forward=32, row_length=96, rows=2, lessons=LESSONS, warm_up=2
    )
    watch = training.watched(maker, EXAMPLES[:3], np.zeros((3, NEIGHBOURS), dtype=np.int64), EXAMPLES)

    def go(work: Path, inputs: str = "text") -> Any:
        return training.train(course, maker, len(tokenizer), watch, work, inputs)

    whole, report = go(tmp_path / "whole")
    assert [row["step"] for row in report["log"]] == [3, 6]
    loss = training._loss
    calls = 0

    def stops(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return loss(*arguments)

    monkeypatch.setattr(training, "_loss", stops)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "stopped")
    monkeypatch.setattr(training, "_loss", loss)
    again, resumed = go(tmp_path / "stopped")
    assert [row["step"] for row in resumed["log"]] == [3, 6]
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    steps: list[int] = []

    def counts(*arguments: Any) -> Any:
        steps.append(1)
        return loss(*arguments)

    monkeypatch.setattr(training, "_loss", counts)
    go(tmp_path / "stopped")
    assert len(steps) == 0  # all done
    go(tmp_path / "stopped", "another text")
    assert len(steps) == course.steps  # begun anew


def test_ways_are_paired_or_refused() -> None:
    seen, new = [True, False, False, True], [True, True, False, False]
    answers = Answers(["Q1", "Q2", "Q3", "Q1"], {"seen": seen, "unseen": [not s for s in seen], "new_texts": new})
    answers.add("model", [True, True, False, True], ["Q1", "Q2", "Q3", "Q1"])
    answers.add("prior", [True, False, False, False], ["Q1", "Q2", "Q3", "Q1"])
    figures = answers.figures("model")
    assert (figures["n"], figures["accuracy"], figures["seen"]["n"], figures["unseen"]["accuracy"]) == (4, 0.75, 2, 0.5)
    assert figures["interval"][0] < 0.75 < figures["interval"][1] <= 1
    assert (figures["new_texts"]["n"], figures["new_texts"]["accuracy"]) == (2, 1.0)
    difference = answers.difference("model", "prior")
    assert (difference["difference"], difference["new_texts"]["difference"]) == (0.5, 0.5)
    with pytest.raises(RuntimeError, match="baseline answered 3 mentions"):
        answers.add("baseline", [True] * 3, ["Q1", "Q2", "Q3"])


def test_what_is_kept_is_what_was_asked_for() -> None:
    found = json.loads((Path(__file__).parents[2] / "research" / "results" / "wikidiverse-val.json").read_text())
    for way in ("shortcut", "entity_linker", "model", "prior", "both", "backoff"):
        for figures in (found[way], found[way]["seen"], found[way]["unseen"], found[way]["new_texts"]):
            low, high = figures["interval"]
            assert 0 <= low < figures["accuracy"] < high <= 1
        assert found[way]["n"] == found["val"]["mentions"]["kept"]
        assert found[way]["n"] == found[way]["seen"]["n"] + found[way]["unseen"]["n"]
    for first, second in (("both", "prior"), ("both", "backoff"), ("model", "shortcut")):
        message = found["differences"][f"{first} - {second}"]
        assert message["difference"] == pytest.approx(found[first]["accuracy"] - found[second]["accuracy"])
        assert message["interval"][0] > 0
