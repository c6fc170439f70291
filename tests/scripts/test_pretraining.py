"""The language model's pretraining: what its text asks for, that it can be interrupted, and how its gates judge."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from mini_world import train_lm
from mini_world.curriculum import CAPTION, MENTION, NOTHING, Lesson, make_recall, make_rows
from mini_world.distractors import make_distractors
from mini_world.gates import exact_matches, gate_prompts
from mini_world.names import KINDS, WORLD_SEED, load_world
from mini_world.prompts import FLATTENING, PromptMaker
from mini_world.token_stream import ANSWER, OTHER, Encoder
from mini_world.tokens import train_tokenizer
from mini_world.train_lm import LESSONS, LMSettings, build_model, learning_rate_share

MIXED = Lesson("mixed", 6, CAPTION, prompts=0.4, copied=0.5, statements=0.1, picture_noise=1.0)
SMALL = LMSettings(hidden=32, layers=2, heads=2, feed_forward=48, rows=2, row_length=96, lessons=(MIXED,), warm_up=2)


needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="pretraining needs torch 2.9")


@pytest.fixture(scope="module")
def maker() -> PromptMaker:
    world = load_world()
    return PromptMaker(world, [str(row["name"]) for row in make_distractors(world, WORLD_SEED)])


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    world = load_world()
    return Encoder(train_tokenizer(world, make_distractors(world, WORLD_SEED)))


def test_rows_do_not_depend_on_where_a_run_starts(maker: PromptMaker, encoder: Encoder) -> None:
    whole = make_rows(maker, encoder, MIXED, 3, 0, 6, 200)
    later = make_rows(maker, encoder, MIXED, 3, 4, 2, 200)
    for all_rows, last_rows in zip(whole, later, strict=True):
        assert (all_rows[4:] == last_rows).all()


@pytest.mark.parametrize("distance", range(NOTHING, CAPTION + 1))
def test_recall_asks_for_a_name_just_when_it_stands_before(maker: PromptMaker, encoder: Encoder, distance: int) -> None:
    newline = encoder("\n")[0]
    for seed in range(20):
        document = make_recall(maker, encoder, distance, np.random.default_rng(seed))
        answers: list[tuple[tuple[int, ...], float]] = []
        answer: list[int] = []
        for token, weight in zip(document.ids, document.weights, strict=True):
            if weight:
                answer.append(token)
            if weight and token == newline:
                answers.append((tuple(answer), weight))
                answer = []
        for index, (name, weight) in enumerate(answers):
            assert (weight == ANSWER) == (name in {before for before, _ in answers[:index]})
            assert encoder.tokenizer.decode(name).rstrip("\n") not in maker.titles
        assert any(weight == ANSWER for _, weight in answers)
        assert any(document.pictured) == (distance >= MENTION)


def test_a_document_asks_for_what_can_be_known(maker: PromptMaker) -> None:
    titles = {reading.name for reading in maker.read}
    for seed in range(60):
        items = maker.document(np.random.default_rng(seed), 0.5)
        assert 2 <= len(items) <= 10 and not items[0].knowable
        for index, item in enumerate(items[1:], 1):
            stands = item.name in {before.name for before in items[:index]}
            assert item.name in titles or item.name not in maker.titles  # read, or invented: never an unread entity
            if item.knowable:
                assert item.name in titles or stands


def test_rows_tell_of_a_name_s_readings_by_popularity(maker: PromptMaker) -> None:
    """Those without pictures: only so can the text alone favour the common reading."""
    family = max(maker.by_family, key=lambda name: len(maker.by_family[name]))
    readings = maker.by_family[family]
    weights = np.array([reading.weight for reading in readings]) ** FLATTENING
    message: Counter[str] = Counter()
    for seed in range(4000):
        items = maker.document(np.random.default_rng(seed), 0.0, picture=False)
        about = [item.name for item in items if item.name in {reading.name for reading in readings}]
        if len(about) >= 3:  # a row about this family
            message.update(about)
    counts = np.array([message[reading.name] for reading in readings])
    assert counts.sum() > 100
    spread = np.sqrt(counts.sum() * 0.25)
    assert np.abs(counts - counts.sum() * weights / weights.sum()).max() < 4 * spread
    assert counts.max() > 1.3 * counts.min()


def _rows(maker: PromptMaker, picture: bool) -> list[tuple[list[str], list[str]]]:
    """Names and families of rows that show six examples or more."""
    family_of = {reading.name: reading.family for reading in maker.read}
    found = []
    for seed in range(900):
        items = maker.document(np.random.default_rng(seed), 0.0, picture=picture)
        if len(items) >= 7:
            found.append(([item.name for item in items], [family_of[item.name] for item in items]))
    return found


def test_some_rows_end_with_a_reading_that_no_example_shows(maker: PromptMaker) -> None:
    """Where there are pictures to tell it by; else what is told by popularity would not be what is common."""
    shares = {}
    for picture in (True, False):
        rows = [row for row in _rows(maker, picture) if row[1][:-1].count(row[1][-1]) >= 3]
        shares[picture] = np.mean([names[-1] not in names[:-1] for names, _ in rows])
    assert shares[True] > 0.3 > 0.2 > shares[False]


def test_some_rows_are_of_unrelated_items(maker: PromptMaker) -> None:
    rows = _rows(maker, picture=False)
    assert 0.02 < np.mean([len(set(families[:-1])) == len(families) - 1 for _, families in rows]) < 0.2


def test_pictures_are_marked_where_their_words_stand(maker: PromptMaker, encoder: Encoder) -> None:
    kinds = {encoder(kind)[0] for kind in KINDS}
    ids, weights, pictures = make_rows(maker, encoder, replace(MIXED, statements=0.0), 0, 0, 8, 300)
    assert pictures.any() and set(ids[pictures].tolist()) <= kinds
    assert (weights[pictures] == 0).all()
    for seed in range(20):
        items = maker.document(np.random.default_rng(seed), 0.5)
        assert sum(encoder.items(items)[2]) == sum(item.picture_words for item in items)
    assert set(np.unique(weights).tolist()) <= {0.0, np.float32(OTHER), ANSWER}


def test_lessons_follow_each_other_and_the_rate_ends_low() -> None:
    settings = LMSettings()
    assert [lesson.until for lesson in LESSONS] == sorted({lesson.until for lesson in LESSONS})
    assert settings.lesson_at(0) is LESSONS[0] and settings.lesson_at(settings.steps - 1) is LESSONS[-1]
    rates = [learning_rate_share(settings, step) for step in range(settings.steps)]
    assert max(rates) == 1.0 and rates[-1] < 0.03 and rates[0] <= 0.01
    assert all(later <= earlier for earlier, later in pairwise(rates[settings.warm_up :]))


def test_no_answer_is_the_name_of_an_unread_entity(maker: PromptMaker, encoder: Encoder) -> None:
    unread = {reading.name for reading in load_world() if not reading.is_read}
    ids, _, _ = make_rows(maker, encoder, MIXED, 1, 0, 40, 352)
    text = encoder.tokenizer.decode(ids.ravel().tolist())
    answers = {part.split("\n")[0] for part in text.split("[Answer]")[1:]}
    assert len(answers) > 100 and not answers & unread
    for seed in range(200):
        name = maker.statement(np.random.default_rng(seed))
        assert any(reading.name in name for reading in maker.read)


class _Stop(Exception):
    pass


@needs_muon
def test_training_teaches_what_the_rows_ask_for(
    maker: PromptMaker, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same two rows again and again: a target that is one token off could not be learned."""
    monkeypatch.setattr(train_lm.shutil, "which", lambda name: None)
    monkeypatch.setattr(train_lm, "measure_gates", lambda *args, **kwargs: {})
    document = maker.document(np.random.default_rng(5), 0.0, 4, picture=True)
    ids, weights, pictured = encoder.items(document)
    rows = (np.array([ids] * 2), np.array([weights] * 2, dtype=np.float32), np.array([pictured] * 2))
    monkeypatch.setattr(train_lm, "make_rows", lambda *args: rows)
    settings = replace(SMALL, lessons=(replace(MIXED, until=150, picture_noise=0.1),))
    untrained = build_model(settings, len(encoder.tokenizer), 0).eval()
    model, _ = train_lm.train_lm(settings, maker, encoder, tmp_path, torch.device("cpu"))
    prompts = [document[: index + 1] for index in range(1, len(document))]
    assert not exact_matches(untrained, encoder, prompts).any()
    assert exact_matches(model, encoder, prompts).all()


@needs_muon
def test_an_interrupted_training_goes_on_as_if_nothing_had_been(
    maker: PromptMaker, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_lm.shutil, "which", lambda name: None)  # no compiler: compiling takes half a minute
    monkeypatch.setattr(train_lm, "measure_gates", lambda *args, **kwargs: {})
    cpu = torch.device("cpu")
    lessons = (replace(MIXED, until=203),)  # the state is kept at step 200
    settings = replace(SMALL, lessons=lessons, rows=1, row_length=40, matrix_learning_rate=2e-3)
    whole, _ = train_lm.train_lm(settings, maker, encoder, tmp_path / "whole", cpu)
    steps = []

    def stops(*arguments: object) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        steps.append(arguments)
        if len(steps) == 202:
            raise _Stop
        return make_rows(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(train_lm, "make_rows", stops)
    with pytest.raises(_Stop):
        train_lm.train_lm(settings, maker, encoder, tmp_path / "parts", cpu)
    parts, report = train_lm.train_lm(settings, maker, encoder, tmp_path / "parts", cpu)
    assert len(steps) == 202 + 3  # up to the broken one, then those after the state of step 200
    assert [row["step"] for row in report["log"]] == [200, 203]
    for name, value in whole.state_dict().items():
        assert torch.allclose(value, parts.state_dict()[name], atol=1e-6), name


def test_gates_judge_as_greedy_generation_does(maker: PromptMaker, encoder: Encoder) -> None:
    """A model is trained for some steps on few names, so that it is right at times; generate is the reference."""
    eos = int(encoder.tokenizer.eos_token_id)
    model = build_model(SMALL, len(encoder.tokenizer), eos)
    prompts = [items[-2:] for items in gate_prompts(maker, 12, 5)["read, picture in words"]]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(80):
        for items in prompts[:4]:
            ids = torch.tensor([encoder.items(items)[0]])
            optimizer.zero_grad()
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
    model.eval()
    found = exact_matches(model, encoder, prompts, batch=5)
    newline = encoder("\n")
    wanted = []
    for items in prompts:
        prompt, answer = encoder.prompt(items), encoder(items[-1].name) + newline
        said = model.generate(
            torch.tensor([prompt]), max_new_tokens=len(answer), do_sample=False, pad_token_id=eos, eos_token_id=newline
        )[0, len(prompt) :].tolist()
        wanted.append(said == answer)
    assert found.tolist() == wanted
    assert 0 < sum(wanted) < len(wanted)


def test_gate_prompts_are_what_their_names_say(maker: PromptMaker) -> None:
    prompts = gate_prompts(maker, 40, 9)
    read = {reading.name for reading in maker.read}
    for items in prompts["invented, stands in one demonstration"]:
        assert items[-1].name not in maker.titles
        assert sum(item.name == items[-1].name for item in items) == 2
    assert all(items[-1].name in read and items[-1].picture_words for items in prompts["read, picture in words"])
    assert all(items[-1].picture_words == 0 for items in prompts["read, text only"])
