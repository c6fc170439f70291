"""How fast mentions are linked, beside the official way in the same run, and where a mention's time goes.

python -m benchmarks.linking [--profile] [--mentions 8] [--repeats 3] [--names 6000000] [--tiny]
python -m benchmarks.linking --model real [--data DATA] [--models DIR] [--profile] [--mentions 8] [--repeats 3] [--tiny]

Both link the same captions of the mini world with the same weights and the same prompts, in fp32: a Llama-shaped model
of about 100M random parameters with 16 demonstrations, and the mini world's own. For --model real see
benchmarks/linking_real.py. Only a run with the default sizes writes to benchmarks/results.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.agreement import Answer, agreement
from benchmarks.constraint import measure_constraint, trie_on_disk
from benchmarks.official import Official, names_in, nested_dicts
from benchmarks.prefill import measure_prefill
from benchmarks.random_llama import Shape, write_random_llama
from benchmarks.stage_clock import StageClock, watched
from benchmarks.subject import (
    Caption,
    ModelPaths,
    docs_of,
    empty_caches,
    lengthen,
    linker_in,
    make_pipeline,
    read_captions,
)
from benchmarks.timing import seconds_of, spread
from research.commands import report
from research.machine import describe_machine
from research.mini_world import MODELS, ROOT, World, prepare
from spacy_gemel.linking.retrievers import Query
from spacy_gemel.utils.files import write_json

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc
    from torch import Tensor

    from spacy_gemel.linking.mention import Mention
    from spacy_gemel.linking.model import LinkingModel

WORLD = World(name="linking", test=200)
SETS = 16


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured.

    mentions: with the 100M model. mini_mentions: with the mini world's. examples: captions that the demonstrations of
    the 100M model are chosen from. more_words: added to each caption, for prompts of 1,000 tokens. profile: also say
    where a mention's time goes.
    """

    mentions: int = 8
    mini_mentions: int = 60
    repeats: int = 3
    names: int = 6_000_000
    examples: int = 200
    mini_examples: int = 1600
    demonstrations: int = 16
    mini_demonstrations: int = 8
    more_words: int = 40
    profile: bool = False
    shape: Shape = field(default_factory=Shape)


TINY = Sizes(
    mentions=2,
    mini_mentions=3,
    repeats=1,
    names=2000,
    examples=20,
    mini_examples=20,
    more_words=10,
    shape=Shape(hidden=32, inner=64, layers=1, heads=2),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and at the default sizes keep."""
    default = Sizes()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.linking", description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=("random", "real"), default="random", help="the large language model")
    parser.add_argument("--models", type=Path, help="folder of the real models, by default assets/real")
    parser.add_argument("--data", type=Path, help="with --model real: a folder with kb/ and wikidiverse/")
    parser.add_argument("--profile", action="store_true", help="also say where a mention's time goes")
    parser.add_argument("--mentions", type=int, default=default.mentions, help="mentions of the large model")
    parser.add_argument("--repeats", type=int, default=default.repeats)
    parser.add_argument("--names", type=int, default=default.names, help="names of the trie of constraint_overhead")
    parser.add_argument("--tiny", action="store_true", help="all sizes as small as they go: does it run?")
    options = parser.parse_args(arguments)
    chosen = replace(default, mentions=options.mentions, repeats=options.repeats, names=options.names)
    sizes = replace(TINY if options.tiny else chosen, profile=options.profile)
    if options.model == "real":
        from benchmarks import linking_real

        linking_real.run(options.models or ROOT / "assets" / "real", options.data, sizes, tiny=options.tiny)
        return
    prepare(WORLD)
    models = ROOT / MODELS
    paths = ModelPaths(models / "language_model", models / "vision_encoder", models / "sentence_encoder", WORLD.kb)
    data = WORLD.folder("data")
    result = measure(paths, read_captions(data / "train.jsonl"), read_captions(data / "test.jsonl"), sizes)
    if replace(sizes, profile=False) == default:
        write_json(ROOT / "benchmarks" / "results" / "linking.json", result)
    print(json.dumps(result))


def measure(paths: ModelPaths, train: Sequence[Caption], test: Sequence[Caption], sizes: Sizes) -> dict[str, Any]:
    """All figures. parts: with the mini world's language model, whose tokenizer the large one takes."""
    with tempfile.TemporaryDirectory() as folder:
        report("writing the model of random weights")
        large = write_random_llama(Path(folder), paths.language_model, sizes.shape)
        result = measure_large(replace(paths, language_model=large), train, test, sizes)
    report("the mini world")
    pair = make_pair(paths, train[: sizes.mini_examples], sizes.mini_demonstrations)
    result["mini"] = measure_beside(*pair, test[: sizes.mini_mentions], sizes)
    return {**result, "holds": check_targets(result), "machine": describe_machine()}


def check_targets(result: Mapping[str, Any]) -> dict[str, bool]:
    """Which of the figures that are asked for hold."""
    mini = result["mini"]
    return {
        "prompt_tokens": result["prompt_tokens"]["least"] >= 1000,
        "speedup": result["speedup"]["median"] >= 4.8,
        "speedup_bf16": result["speedup_bf16"]["median"] >= 8 or not result["bf16_in_processor"],
        "same_best": result["same_best"] == mini["same_best"] == 1,
        "scores": max(result["largest_score_difference"], mini["largest_score_difference"]) <= 1e-4,
        "lower_ranks": not result["still_differ_without_early_stop"] and not mini["still_differ_without_early_stop"],
        "constraint_overhead": result["constraint_overhead"]["median"] <= 0.05,
        "flop_utilisation": result["flop_utilisation"]["median"] >= 0.5,
        "mini_speedup": mini["speedup"]["median"] >= 4.8,
    }


def measure_large(paths: ModelPaths, train: Sequence[Caption], test: Sequence[Caption], sizes: Sizes) -> dict[str, Any]:
    """The figures of the model of random weights."""
    train_captions = lengthen(train[: sizes.examples], sizes.more_words)
    asked = lengthen(test[: sizes.mentions], sizes.more_words)
    nlp, half = make_pair(paths, train_captions, sizes.demonstrations)
    result = measure_beside(nlp, half, asked, sizes)
    linking_model, settings = linker_in(nlp).linking_model, linker_in(nlp).settings
    report("the prefill alone")
    batch = prompts_at_once(nlp, asked)
    result |= measure_prefill(linking_model.language_model, batch, sizes.repeats)
    report(f"a trie of {sizes.names} names")
    with tempfile.TemporaryDirectory() as folder:
        trie = trie_on_disk(sizes.names, Path(folder))
        result |= measure_constraint(
            linking_model.language_model, batch, trie, linking_model.end_id(settings), sizes.repeats
        )
    return result


def make_pair(paths: ModelPaths, train: Sequence[Caption], demonstrations: int) -> "tuple[Language, Language]":
    """The pipeline in fp32 and in bf16."""
    nlp = make_pipeline(paths, train, demonstrations)
    half = make_pipeline(replace(paths, dtype="bfloat16"), train, demonstrations)
    for name in ("W", "b"):  # the same mapper: its start depends a little on the embeddings
        linker_in(half).model.set_param(name, linker_in(nlp).model.get_param(name).copy())
    return nlp, half


def prompts_at_once(nlp: "Language", captions: Sequence[Caption]) -> "list[Tensor]":
    """The embedded prompts of the first captions, as many as `batch_tokens` takes."""
    linking_model, settings = linker_in(nlp).linking_model, linker_in(nlp).settings
    prompts = [prompt for prompt in linking_model.prompts(mentions_of(nlp, captions), settings) if prompt]
    embedded, _ = linking_model.embed(prompts, train=False)
    return embedded[: max(1, settings.batch_tokens // max(len(prompt) for prompt in embedded))]


def measure_beside(nlp: "Language", half: "Language", asked: Sequence[Caption], sizes: Sizes) -> dict[str, Any]:
    """How fast this pipe, in fp32 and bf16, and the official way link the same captions, and whether they agree.

    They take turns, as the machine may not be the same a minute later.
    """
    linking_model, settings = linker_in(nlp).linking_model, linker_in(nlp).settings
    names = names_in(linking_model.kb, linking_model.language_model.tokenizer)
    reference = Official(linking_model, settings, nested_dicts(names.values(), linking_model.end_id(settings)))
    mentions = mentions_of(nlp, asked)
    ranked = [linking_model.rank_demonstrations(Query(mention.mention, mention.text), settings) for mention in mentions]
    lengths = check_prompts(linking_model, reference, mentions, ranked)
    for each in (nlp, half):
        time_ours(each, asked[:1])
    reference.link(mentions[0], ranked[0])
    seconds: dict[str, list[float]] = {"fp32": [], "bf16": [], "sets": [], "sets_bf16": [], "reference": []}
    expected: list[Answer] = []
    for repeat in range(sizes.repeats):
        report(f"linking {len(asked)} mentions, and the same with transformers.generate, one at a time: {repeat + 1}")
        second, answers = time_ours(nlp, asked)
        seconds["fp32"].append(second)
        begin = time.perf_counter()
        expected = [reference.link(*each) for each in zip(mentions, ranked, strict=True)]
        seconds["reference"].append(time.perf_counter() - begin)
        second, halves = time_ours(half, asked)
        seconds["bf16"].append(second)
        for name, pipeline in (("sets", nlp), ("sets_bf16", half)):
            time_sets(pipeline, asked, SETS)  # reads them
            seconds[name].append(time_sets(pipeline, asked, SETS))
    texts = [caption.text for caption in asked]
    agreed = agreement(texts, answers, expected)
    differ = {row["mention"] for row in agreed["lower_ranks_differ"]}
    exactly = [
        (text, answer, reference.link(mention, its_demonstrations, early_stopping="never"))
        for text, answer, mention, its_demonstrations in zip(texts, answers, mentions, ranked, strict=True)
        if text in differ
    ]
    exact = agreement(*zip(*exactly, strict=True)) if exactly else None
    rates = {name: [len(asked) / each for each in times] for name, times in seconds.items()}
    result = {
        "speedup": ratio(seconds["reference"], seconds["fp32"]),
        "speedup_bf16": ratio(seconds["reference"], seconds["bf16"]),
        "demonstration_sets": SETS,
        "speedup_sets": ratio(seconds["reference"], seconds["sets"]),
        "speedup_sets_bf16": ratio(seconds["reference"], seconds["sets_bf16"]),
        "mentions_per_second": spread(rates["fp32"]),
        "mentions_per_second_bf16": spread(rates["bf16"]),
        "reference_mentions_per_second": spread(rates["reference"]),
        "bf16_in_processor": has_bf16(),
        "mentions": len(asked),
        "prompt_tokens": {"least": min(lengths), "mean": round(sum(lengths) / len(lengths)), "most": max(lengths)},
        **agreed,
        "still_differ_without_early_stop": [] if exact is None else exact["best_differs"] + exact["lower_ranks_differ"],
        "same_best_bf16": agreement(texts, halves, expected)["same_best"],
    }
    return result | ({"profile": profile(nlp, asked)} if sizes.profile else {})


def check_prompts(
    linking_model: "LinkingModel",
    reference: Official,
    mentions: "Sequence[Mention]",
    ranked: Sequence[list[int]],
) -> list[int]:
    """The prompts' lengths in tokens. Raises RuntimeError where both ways would not read the same prompt."""
    lengths = []
    prompts = linking_model.prompts(mentions, reference.settings)
    for mention, demonstrations, prompt in zip(mentions, ranked, prompts, strict=True):
        if prompt is None:
            raise RuntimeError(
                f"the prompt of {mention.mention!r} does not fit the language model: use shorter captions"
            )
        [ours], _ = linking_model.embed([prompt], train=False)
        theirs = reference.embed(mention, demonstrations)
        if ours.shape != theirs.shape or not ours.allclose(theirs, atol=1e-4):
            raise RuntimeError(f"both ways have different prompts for {mention.mention!r} in {mention.text[:50]!r}")
        lengths.append(prompt.length)
    return lengths


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """How many times faster we are, turn by turn."""
    return spread([their / our for their, our in zip(theirs, ours, strict=True)], 2)


def time_ours(nlp: "Language", captions: Sequence[Caption]) -> tuple[float, list[Answer]]:
    """Seconds of the pipe over the captions, nothing kept from before, and its answers."""
    empty_caches(nlp)
    docs = docs_of(nlp, captions)
    [seconds] = seconds_of(partial(link_docs, nlp, docs))
    return seconds, [searched_names(nlp, doc) for doc in docs]


def time_sets(nlp: "Language", captions: Sequence[Caption], count: int) -> float:
    """Seconds of the pipe over the captions with so many sets, 0 for retrieved demonstrations.

    What is known of these mentions from an earlier turn is forgotten, but not which sets have been read.
    """
    linker = linker_in(nlp)
    linker.configure(demonstration_sets=count)
    linking_model = linker.linking_model
    retriever: Any = linking_model.retriever
    retriever._ranks.clear()
    if sets := linking_model._demonstration_sets(linker.settings):
        sets._nearest.clear()
    docs = docs_of(nlp, captions)
    [seconds] = seconds_of(partial(link_docs, nlp, docs))
    linker.configure(demonstration_sets=0)
    return seconds


def searched_names(nlp: "Language", doc: "Doc") -> Answer:
    """The names that the search found with their scores, without the mention's own name if that is one too many."""
    linker, [ent] = linker_in(nlp), doc.ents
    names = list({candidate.name: candidate.score for candidate in ent._.gemel_candidates}.items())
    bearers = {linker.kb.entity(row).name for rows in linker.kb.rows_by_surface(ent.text) for row in rows}
    for name in [pair for pair in reversed(names) if pair[0] in bearers]:
        if len(names) > linker.settings.n_candidates:
            names.remove(name)
    return names


def link_docs(nlp: "Language", docs: "Sequence[Doc]") -> None:
    """Run the pipeline over docs that stay as they are but for what it writes."""
    for _ in nlp.pipe(docs):
        pass


def profile(nlp: "Language", captions: Sequence[Caption]) -> dict[str, dict[str, float]]:
    """Milliseconds of a mention and share of its time by stage, in a run of its own."""
    empty_caches(nlp)
    clock = StageClock()
    docs = docs_of(nlp, captions)
    with watched(nlp, clock), clock.stage("other"):
        link_docs(nlp, docs)
    return clock.shares(len(captions))


def mentions_of(nlp: "Language", captions: Sequence[Caption]) -> "list[Mention]":
    """The captions' mentions as the stages take them, the features of their pictures read."""
    from spacy_gemel.pipeline.mentions import gather_mentions

    return gather_mentions(
        [doc.ents for doc in docs_of(nlp, captions)], linker_in(nlp)._reader, linker_in(nlp).settings
    )


def has_bf16() -> bool:
    """Whether the processor multiplies bf16 itself."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


if __name__ == "__main__":
    main(sys.argv[1:])
