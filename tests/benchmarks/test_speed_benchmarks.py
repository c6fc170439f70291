"""The benchmarks of speed: what they compute, and that they run, at sizes where no figure means anything."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from benchmarks import demonstration_sets, encode_images, latency, linking, linking_real, passes, peers, size, soak
from benchmarks.agreement import agreement
from benchmarks.peer_steps import MatcherMasks, run_case
from benchmarks.prefill import prefill_operations
from benchmarks.random_llama import Shape, write_random_llama
from benchmarks.stage_clock import NAMES, StageClock
from benchmarks.subject import read_captions
from research.mini_world import ROOT, World
from spacy_gemel.models.causal_lm import load_causal_lm
from spacy_gemel.models.open_clip import load_open_clip
from tests.mini_pipeline import COLOURS, entity_id, make_kb, picture
from tests.tiny import NAMES as ENTITY_NAMES


def test_agreement_tells_ties_from_errors_and_lower_ranks() -> None:
    same = [("A", -1.0), ("B", -2.0)]
    result = agreement(
        ["same", "lower", "tie", "wrong", "nothing"],
        [same, same, [("A", -1.0)], same, []],
        [[("A", -1.00001), ("B", -2.0)], [("A", -1.0), ("C", -2.5)], [("B", -1.00005)], [("B", -0.5)], same],
    )
    assert result["same_best"] == 0.6
    assert [(row["mention"], row["tie"]) for row in result["best_differs"]] == [
        ("tie", True),
        ("wrong", False),
        ("nothing", False),
    ]
    assert result["lower_ranks_differ"] == [{"mention": "lower", "ours": ["A", "B"], "reference": ["A", "C"]}]
    assert result["largest_score_difference"] == pytest.approx(1.5)  # of B in "wrong"
    assert agreement([], [], [])["same_best"] == 1


def test_time_in_an_inner_stage_counts_there_alone() -> None:
    ticks = iter([0.0, 1.0, 3.0, 7.0, 8.0, 10.0])
    clock = StageClock(lambda: next(ticks))
    with clock.stage("other"), clock.stage("map"):  # from 0 to 10, and from 1 to 8
        clock.wrap("embed", lambda: None)()  # from 3 to 7
    assert clock.seconds == {**dict.fromkeys(NAMES, 0.0), "other": 3.0, "map": 3.0, "embed": 4.0}
    assert clock.shares(2)["embed"] == {"ms_per_mention": 2000.0, "share": 0.4}


def test_operations_of_a_prefill_by_hand(models: Path, tmp_path: Path) -> None:
    shape = Shape(hidden=32, inner=48, layers=2, heads=4, vocabulary=500, longest=64)
    write_random_llama(tmp_path, models / "language_model", shape)
    model = load_causal_lm(str(tmp_path), revision=None, device="cpu", dtype=None)
    layers = 2 * (4 * 32 * 32 + 3 * 32 * 48)
    expected = sum(2 * layers * n + 2 * (2 * 2 * n * n / 2 * 32) + 2 * 32 * 500 for n in (10, 7))
    assert prefill_operations(model, [10, 7]) == expected


@pytest.fixture(scope="module")
def world(models: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A made-up world where `prepare` would have put one, with the small random models as its own."""
    root = tmp_path_factory.mktemp("root")
    world = World(name="linking", root=root)
    data = world.folder("data")
    data.mkdir(parents=True)
    for split, count in (("train", 12), ("test", 4)):
        rows = []
        for index in range(count):
            name = list(COLOURS)[index % len(COLOURS)]
            Image.fromarray(picture(name, index)).save(data / f"{split}-{index}.png")
            mention = {"start": 11, "end": 18, "kb_id": entity_id(name)}
            text = f"A photo of Mercury number {index}."
            rows.append(json.dumps({"text": text, "image": f"{split}-{index}.png", "mentions": [mention]}))
        (data / f"{split}.jsonl").write_text("\n".join(rows))
    shutil.copytree(models, root / "assets" / "mini")
    world.kb.parent.mkdir(parents=True)
    make_kb(root, models).rename(world.kb)
    return world


def test_linking_runs_and_agrees(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(linking, "WORLD", world)
    monkeypatch.setattr(linking, "ROOT", world.root)
    monkeypatch.setattr(linking, "prepare", lambda _: None)
    linking.main(["--tiny", "--profile"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    for part in (result, result["mini"]):
        assert part["same_best"] == 1.0
        assert part["best_differs"] == []
        assert part["largest_score_difference"] < 1e-4
        assert part["still_differ_without_early_stop"] == []
        assert part["speedup"]["least"] > 0
        assert 0 <= part["same_best_bf16"] <= 1
        assert part["profile"].keys() == set(NAMES)
        assert sum(stage["share"] for stage in part["profile"].values()) == pytest.approx(1, abs=0.01)
    assert 0 < result["constraint_overhead"]["median"] < 1
    assert result["flop_utilisation"]["median"] > 0
    assert result["limit_mentions_per_second"] > 0
    assert result["holds"]["same_best"]
    assert result["holds"]["scores"]
    assert result["holds"]["lower_ranks"]
    assert result["machine"]["versions"]["torch"]
    assert not (world.root / "benchmarks").exists()  # only the default sizes are kept


def test_a_real_model_links_beside_the_official_way(
    world: World, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(linking, "WORLD", world)
    monkeypatch.setattr(linking, "ROOT", world.root)
    monkeypatch.setattr(linking_real, "prepare", lambda _: None)
    rows = [{"id": entity_id(name), "name": name} for name in ENTITY_NAMES]
    write_lines(world.folder("data") / "entities.jsonl", rows)
    sentence = {"sentence": "Mercury again.", "mention": ["Mercury"], "answer": [entity_id("Mercury")]}
    (tmp_path / "wikidiverse").mkdir()
    (tmp_path / "kb").mkdir()
    for split in ("train", "val"):
        (tmp_path / "wikidiverse" / f"{split}.json").write_text(json.dumps([sentence] * 4))
    write_lines(tmp_path / "kb" / "entities.jsonl", rows[:8])
    for arguments, entities in ((["--data", str(tmp_path)], 8), ([], len(ENTITY_NAMES))):
        linking.main(["--model", "real", "--models", str(models), "--tiny", *arguments])
        result = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (result["entities"], result["compared"], result["same_best"]) == (entities, 4, 1.0)
        assert result["largest_score_difference"] < 1e-4
        for figure in ("speedup", "speedup_bf16", "bf16_over_fp32", "flop_utilisation"):
            assert result[figure]["least"] > 0
        assert 0 <= result["same_best_bf16"] <= 1
    with pytest.raises(SystemExit, match="real-models"):
        linking.main(["--model", "real", "--tiny"])
    assert not (world.root / "benchmarks").exists()


def test_passes_of_a_search(
    world: World, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(passes, "ROOT", world.root)
    (tmp_path / "wikidiverse").mkdir()
    for split in ("train", "val"):
        rows = [
            {"sentence": f"{name} again.", "mention": [name], "answer": [entity_id(name)]} for name in ENTITY_NAMES[:4]
        ]
        (tmp_path / "wikidiverse" / f"{split}.json").write_text(json.dumps(rows))
    arguments = ["--data", tmp_path, "--kb", world.kb, "--models", models, "--mentions", 4]
    passes.main([str(argument) for argument in arguments])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    alone, together = result["batch_1"], result["batch_16"]
    assert alone["ahead"]["passes"] < alone["step_by_step"]["passes"]
    assert alone["ahead"]["passes"] <= alone["exact"]["passes"]
    assert "step_by_step" not in together
    assert result["same_names"] == 1
    assert result["holds"].keys() == {"passes", "same_names", "exact_passes"}
    assert not (world.root / "benchmarks").exists()  # only the default sizes are kept


def write_lines(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("\n".join(map(json.dumps, rows)))


@pytest.mark.parametrize("step", ["link", "train"])
def test_computed_sizes_stand_beside_measured_ones(
    step: str, world: World, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = {"models": str(models), "kb": str(world.kb), "data": str(world.folder("data")), "step": step}
    size.main(["--case", json.dumps({**case, "dtype": "float32", "batch_tokens": 512, "mentions": 4})])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    memory = "linking" if step == "link" else "training"
    assert result["computed"].keys() == result["measured"].keys() >= {memory, "parameters"}
    assert result["computed"]["parameters"] == pytest.approx(result["measured"]["parameters"], rel=0.01)
    assert result["prompt_tokens"] > 0
    assert result["not_included"] == []


def test_images_per_second_of_a_real_encoder(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "vision_encoder"
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1])
    transformers.ResNetModel(config).save_pretrained(folder)
    transformers.ConvNextImageProcessor(size={"shortest_edge": 64}).save_pretrained(folder)
    (tmp_path / "pictures").mkdir()
    for index in range(4):
        Image.fromarray(picture("Mercury", index)).save(tmp_path / "pictures" / f"{index}.png")
    monkeypatch.setattr(encode_images, "REAL_REPEATS", 1)
    monkeypatch.setattr(
        encode_images,
        "large_encoder",
        lambda: load_open_clip(str(models / "vision_encoder"), None, projection=False, device="cpu", dtype=None),
    )
    arguments = ["--model", "real", "--models", str(tmp_path), "--images", "3"]
    encode_images.main([*arguments, "--pictures", str(tmp_path / "pictures")])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["images"] == 3
    for part in (result["real"], result["vit_b_32_random"]):
        rates = part["images_per_second"]
        assert {"read", "preprocess", "encode", "channels_first_32", "channels_last_16"} <= rates.keys()
        assert all(rate["least"] > 0 for rate in rates.values())
        assert part["largest_difference"] < 1e-5
    for wrong in (["--models", str(tmp_path / "none")], ["--pictures", str(folder)]):
        with pytest.raises(SystemExit, match=r"does not exist|no \.png"):
            encode_images.main([*arguments, *wrong])


def test_the_same_prompts_or_none(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference that reads something else is no reference."""
    from benchmarks.official import Official, names_in, nested_dicts
    from benchmarks.subject import ModelPaths, linker_in, make_pipeline
    from spacy_gemel.linking.retrievers import Query

    models = world.root / "assets" / "mini"
    paths = ModelPaths(models / "language_model", models / "vision_encoder", models / "sentence_encoder", world.kb)
    captions = read_captions(world.folder("data") / "train.jsonl")
    nlp = make_pipeline(paths, captions, 2)
    linking_model, settings = linker_in(nlp).linking_model, linker_in(nlp).settings
    mentions = linking.mentions_of(nlp, captions[:1])
    names = names_in(linking_model.kb, linking_model.language_model.tokenizer)
    reference = Official(linking_model, settings, nested_dicts(names.values(), linking_model.end_id(settings)))
    assert linking.check_prompts(
        linking_model, reference, mentions, [linking_model.rank_demonstrations(Query("Mercury"), settings)]
    )
    with pytest.raises(RuntimeError, match="different prompts for 'Mercury'"):
        linking.check_prompts(linking_model, reference, mentions, [[0]])


def test_peers_find_the_same_names(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "mini").symlink_to(models)
    monkeypatch.setattr(peers, "ROOT", tmp_path)
    monkeypatch.setattr(peers, "run_step", lambda case: run_case(**json.loads(json.dumps(case))))
    peers.main(["--tiny"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["ways"].keys() | result["left_out"].keys() == set(peers.WAYS)
    assert result["left_out"].keys() <= {"gliner_labels_trie", "xgrammar", "llguidance"}  # those that are installed run
    for way, runs in result["ways"].items():
        assert len(runs) == len(peers.TINY.names)
        for run in runs:
            assert "stopped" not in run
            assert run["ms_per_mention"] > 0
            assert run["mask_ms_per_pass"] > 0
            assert run["passes_per_mention"] > 1
            assert ("same_best" in run) == (way not in ("ours", "ours_sets"))  # which show other prompts
            if way in ("official", "generate_with_our_trie", "gliner_labels_trie"):
                assert run["same_best"] == 1.0
    assert [run["names"] <= most for run, most in zip(result["ways"]["ours"], peers.TINY.names, strict=True)]
    assert not (tmp_path / "benchmarks").exists()


def test_a_peer_that_stops_is_asked_for_no_more_names(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def run_step(case: dict[str, Any]) -> dict[str, Any]:
        asked.append((case["way"], Path(case["paths"]["kb"]).name))
        if case["way"] == "xgrammar":
            return {"left_out": "No module named 'xgrammar'"}
        if case["way"] == "llguidance":
            return {"names": 50, "stopped": "not done within 600 s"}
        return {"names": 50, "prompt_tokens": [9, 11], "answers": [[["A", -1.0]], [[case["way"], -len(case["way"])]]]}

    monkeypatch.setattr(peers, "run_step", run_step)
    monkeypatch.setattr(peers, "WAYS", ("ours", "official", "xgrammar", "llguidance"))
    result = peers.measure_random(models, tmp_path, peers.TINY)
    assert asked == [
        *((way, "kb-50") for way in ("ours", "official", "xgrammar", "llguidance")),
        *((way, "kb-200") for way in ("ours", "official")),
    ]
    assert result["left_out"] == {"xgrammar": "No module named 'xgrammar'"}
    assert result["ways"]["llguidance"] == [{"names": 50, "stopped": "not done within 600 s"}]
    assert [run["same_best"] for run in result["ways"]["official"]] == [0.5, 0.5]
    assert result["prompt_tokens"] == {"least": 9, "mean": 10, "most": 11}


def test_a_process_that_is_too_slow_or_killed_has_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    run = subprocess.run

    def in_place_of_the_step(code: str) -> None:
        monkeypatch.setattr(peers.subprocess, "run", lambda _, **options: run([sys.executable, "-c", code], **options))

    in_place_of_the_step("import os; print('{\"names\": 3}', flush=True); os.kill(os.getpid(), 9)")
    assert peers.run_step({}) == {"names": 3, "stopped": "ended by signal 9"}
    in_place_of_the_step("raise ValueError")
    with pytest.raises(subprocess.CalledProcessError):
        peers.run_step({})
    monkeypatch.setattr(peers, "SECONDS", 1)
    in_place_of_the_step("import signal; signal.pause()")
    assert peers.run_step({}) == {"stopped": "not done within 1 s"}


def test_masks_of_a_grammar_engine_follow_the_beams() -> None:
    names, end = [(1, 40), (1, 2, 3), (40,)], 33

    def fill(prefix: tuple[int, ...], mask: np.ndarray) -> None:
        for name in ((*name, end) for name in names):
            if name[: len(prefix)] == prefix:
                mask.view(np.uint32)[name[len(prefix)] // 32] |= np.uint32(1 << name[len(prefix)] % 32)

    def extend(prefix: tuple[int, ...], token: int) -> tuple[int, ...] | None:
        longer = (*prefix, token)
        return longer if any((*name, end)[: len(longer)] == longer for name in names) else None

    masks = MatcherMasks((), extend, fill, end)

    def allowed(*beams: tuple[int, ...]) -> list[list[int]]:
        scores = masks(torch.tensor(beams, dtype=torch.long).view(len(beams), -1), torch.zeros(len(beams), 50))
        return [row.isfinite().nonzero().flatten().tolist() for row in scores]

    assert allowed((), ()) == [[1, 40], [1, 40]]
    assert allowed((1,), (40,), (7,)) == [[2, 40], [end], [end]]
    assert allowed((1, 2), (40, end), (7, 7)) == [[3], [end], [end]]


def test_latency_of_the_first_doc_and_of_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(linking, "WORLD", world)
    monkeypatch.setattr(latency, "prepare", lambda _: None)
    latency.main(["--tiny", "--models", str(world.root / "assets" / "mini")])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["cold"]["calls"], result["warm"]["calls"]) == (1, 2)
    assert result["load_seconds"]["p50"] > 0
    for part in (result["cold"], result["warm"]):
        assert part["ms_by_stage"].keys() == set(NAMES)
        assert part["ms"]["p50"] >= part["ms_by_stage"]["prefill"]["p50"] > 0
        assert part["ms_by_stage"]["encode image"]["p50"] > 0


def test_percentiles_of_calls() -> None:
    calls = [{**dict.fromkeys(NAMES, 0.0), "prefill": seconds, "write": 1.0} for seconds in (1.0, 2.0, 3.0)]
    part = latency.by_stage(calls)
    assert part["ms"] == {"p50": 3000.0, "p95": 3900.0}
    assert part["ms_by_stage"]["prefill"] == {"p50": 2000.0, "p95": 2900.0}


def test_the_gpu_benchmark_runs_without_spacy() -> None:
    program = """
import sys
for name in ("spacy", "thinc", "pyarrow"):
    sys.modules[name] = None  # importing it raises ImportError
from benchmarks import gpu
gpu.main(["--tiny"])
"""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=environment
    )
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["device"] == "cpu"
    assert [row["mentions_at_once"] for row in result["batches"]] == [1, 2]
    for row in result["batches"]:
        assert row["shared_prefix"]
        assert row["passes"] > 1
        assert 0 < row["prefill_share"]["median"] < 1
        assert row["share_of_limit"]["median"] == pytest.approx(
            row["mentions_per_second"]["median"] / row["limit_mentions_per_second"]["median"], abs=1e-4
        )
    assert result["share_of_limit"] == max(row["share_of_limit"]["median"] for row in result["batches"])


def test_soak_runs(world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(soak, "ROOT", world.root)
    monkeypatch.setattr(soak, "NAMES", 60)
    monkeypatch.setattr(soak, "EXAMPLES", 20)
    monkeypatch.setattr(soak, "BAD_EVERY", 4)  # each way once
    monkeypatch.setattr(soak, "BLOCK", 16)
    soak.main(["--docs", "200"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["lost"], result["swapped"], result["changed"]) == (0, 0, 0)
    assert (result["docs"], result["bad"]) == (200, 100)
    assert result["ways"] >= 48
    assert result["good_rate"] == min(result["pipe"]["good_rate"], result["link"]["good_rate"]) > 0
    assert [*result["pipe"]["samples_mb"]][:2] == ["20", "30"]
    assert not (world.root / "benchmarks").exists()


def test_what_the_soak_counts() -> None:
    good = soak.Run([(0, "A"), (2, "B"), (4, "C")], 3.0, {1: 100.0})
    mixed = soak.Run([(0, "A"), (2, "X"), (1, None), (4, "C")], 4.0, {1: 100.0, 2: 130.0, 3: 110.0})
    figures = soak.compare(good, mixed, 5)
    assert (figures["lost"], figures["swapped"], figures["changed"]) == (1, 1, 1)
    assert (figures["memory_growth_mb"], figures["good_rate"]) == (30, 0.75)


def test_made_up_names_are_all_different() -> None:
    assert len({soak.name_of(index) for index in range(soak.NAMES)}) == soak.NAMES
    caption = soak.caption_of(soak.NAMES + 7)
    assert caption.text[caption.start : caption.end] == soak.name_of(7)
    assert np.unique([soak.caption_of(index).text for index in range(4000)]).size == 4000


def test_demonstration_sets(world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(linking, "WORLD", world)
    monkeypatch.setattr(demonstration_sets, "ROOT", world.root)
    monkeypatch.setattr(demonstration_sets, "prepare", lambda _: None)
    demonstration_sets.main(["--tiny"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [*result["sets"]] == ["1", "16", "64", "256"]
    assert all(way["ratio"]["median"] > 0 for way in result["sets"].values())
    assert result["sets"]["1"]["kept_mb"] > 0
