"""One way of holding a language model to names, built and searched in a process of its own: benchmarks.peers starts it.

python -m benchmarks.peer_steps CASE: the last line is a JSON object. The ways are `ours`, ours with sets of
demonstrations that have been read, the official procedure, and `transformers.generate` held by a function over our
trie, by GLiNER's LabelsTrie, or by the masks of xgrammar and llguidance, whose grammars are plain choices of the names.
"""

import ctypes
import gc
import json
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.generation import logits_process

from benchmarks.constraint import ForwardClock
from benchmarks.linking import SETS, check_prompts, mentions_of
from benchmarks.memory import resident_mb
from benchmarks.official import Official, generate_names, nested_dicts
from benchmarks.stage_clock import StageClock, watched
from benchmarks.subject import Caption, ModelPaths, linker_in, make_pipeline
from spacy_gemel.kb.trie import NameTrie
from spacy_gemel.kb.trie_builder import build_trie
from spacy_gemel.linking.retrievers import Query
from spacy_gemel.models.tokenizer import NameTokenizer, load_tokenizer
from spacy_gemel.utils.messages import first_line

if TYPE_CHECKING:
    from spacy_gemel.linking.mention import Mention
    from spacy_gemel.pipeline.gemel_linker import GemelLinker

Answer = list[tuple[str, float]]
MAX_MEMORY = 16 * 2**30  # bytes of address space, so that no way takes the machine's memory


@dataclass(frozen=True, slots=True)
class Subject:
    """What the names are held in. names: the token ids of each. vocab_size: scores that the language model gives."""

    names: Mapping[str, Sequence[int]]
    tokenizer: NameTokenizer
    vocab_size: int
    end_id: int  # the token that ends a name


Build = Callable[[Subject], Any]
Mask = NDArray[np.int32]


class MatcherMasks(logits_process.LogitsProcessor):
    """The masks of a grammar engine for beams: a matcher per prefix, each made of that of the prefix before it.

    Args:
        matcher: the engine's, of the empty prefix.
        extend: a new matcher after one more token, or None if the grammar does not allow it.
        fill: writes a matcher's mask, one bit for each token, into (words,) int32.
        end_id: allowed after a prefix that the grammar does not have; only `generate`'s dead beams hold such ones.
    """

    def __init__(
        self,
        matcher: Any,
        extend: Callable[[Any, int], Any],
        fill: Callable[[Any, Mask], object],
        end_id: int,
    ) -> None:
        self._matcher, self._extend, self._fill, self._end_id = matcher, extend, fill, end_id
        self._matchers: dict[tuple[int, ...], Any] = {}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores with -inf for what no name continues with; (beams, tokens) and (beams, vocab)."""
        if input_ids.shape[1] == 0:
            self._matchers = {(): self._matcher}
        masks = np.zeros((len(input_ids), -(-scores.shape[1] // 32)), dtype=np.int32)
        for prefix, mask in zip(input_ids.tolist(), masks, strict=True):
            matcher = self._after(tuple(prefix))
            if matcher is None:
                mask[self._end_id // 32] = np.uint32(1 << self._end_id % 32).astype(np.int32)
            else:
                self._fill(matcher, mask)
        allowed = np.unpackbits(masks.view(np.uint8), axis=1, bitorder="little")[:, : scores.shape[1]]
        return scores.masked_fill(torch.from_numpy(allowed == 0), float("-inf"))

    def _after(self, prefix: tuple[int, ...]) -> Any:
        if prefix not in self._matchers:
            before = self._after(prefix[:-1])
            gone = before is None or prefix[-1] == self._end_id
            self._matchers[prefix] = None if gone else self._extend(before, prefix[-1])
        return self._matchers[prefix]


def our_trie(subject: Subject) -> NameTrie:
    """The arrays of our trie."""
    lengths = np.array([len(ids) for ids in subject.names.values()])
    tokens = np.fromiter((token for ids in subject.names.values() for token in ids), np.int64, int(lengths.sum()))
    rows: NDArray[np.int64] = np.arange(len(lengths))
    return NameTrie(build_trie(tokens, lengths, rows, np.ones_like(rows), subject.vocab_size))


def load_gliner(_: Subject) -> Build:
    """GLiNER's trie of nested objects."""
    from gliner.decoding.trie import LabelsTrie

    return lambda subject: LabelsTrie([[*ids, subject.end_id] for ids in subject.names.values()])


def load_xgrammar(subject: Subject) -> Build:
    """The masks of xgrammar for an EBNF rule of all names."""
    import xgrammar

    tokens = xgrammar.TokenizerInfo.from_huggingface(
        subject.tokenizer.tokenizer, vocab_size=subject.vocab_size, stop_token_ids=[subject.end_id]
    )

    def build(subject: Subject) -> MatcherMasks:
        rule = "root ::= " + " | ".join(json.dumps(name, ensure_ascii=False) for name in subject.names)
        grammar = xgrammar.GrammarCompiler(tokens, cache_enabled=False).compile_grammar(rule)
        return MatcherMasks(xgrammar.GrammarMatcher(grammar), extend, fill, subject.end_id)

    def extend(matcher: Any, token: int) -> Any:
        longer = matcher.fork()
        return longer if longer.accept_token(token) else None

    def fill(matcher: Any, mask: Mask) -> None:
        matcher.fill_next_token_bitmask(torch.from_numpy(mask[None]))

    return build


def load_llguidance(subject: Subject) -> Build:
    """The masks of llguidance for a regular expression of all names, its limits lifted.

    Its own form of a choice takes 2,000 names by its default limits, and fewer than 65,536 without.
    """
    import llguidance
    import llguidance.hf
    import llguidance.numpy

    tokens = llguidance.hf.from_tokenizer(
        subject.tokenizer.tokenizer, n_vocab=subject.vocab_size, eos_token=subject.end_id
    )
    limits = llguidance.LLParserLimits(
        **dict.fromkeys(("initial_lexer_fuel", "step_lexer_fuel", "max_lexer_states", "max_grammar_size"), 2**31)
    )

    def build(subject: Subject) -> MatcherMasks:
        grammar = llguidance.LLMatcher.grammar_from_regex("|".join(map(re.escape, subject.names)))
        matcher = llguidance.LLMatcher(tokens, grammar, limits=limits)
        return MatcherMasks(checked(matcher), extend, fill, subject.end_id)

    def extend(matcher: Any, token: int) -> Any:
        longer = matcher.deep_copy()
        return longer if longer.consume_token(token) else None

    def fill(matcher: Any, mask: Mask) -> None:
        llguidance.numpy.fill_next_token_bitmask(checked(matcher), mask[None])

    def checked(matcher: Any) -> Any:
        if matcher.is_error():
            raise RuntimeError(matcher.get_error())
        return matcher

    return build


# What needs no names, such as reading the vocabulary, belongs to no build.
LOAD: dict[str, Callable[[Subject], Build]] = {
    "ours": lambda _: our_trie,
    "ours_sets": lambda _: our_trie,
    "official": lambda _: lambda subject: nested_dicts(subject.names.values(), subject.end_id),
    "generate_with_our_trie": lambda _: our_trie,
    "gliner_labels_trie": load_gliner,
    "xgrammar": load_xgrammar,
    "llguidance": load_llguidance,
}


def make_search(
    way: str, built: Any, linker: "GemelLinker", mentions: "Sequence[Mention]", ranked: Sequence[list[int]]
) -> Callable[[int], Answer]:
    """A function that finds the names of the mention with some index. ranked: the demonstrations of each."""
    linking_model, settings = linker.linking_model, linker.settings
    end_id = linking_model.end_id(settings)

    def ours(index: int) -> Answer:
        [result] = linking_model.find([mentions[index]], settings)
        return [(name.name, name.score) for name in result.names if name.searched]

    def generate(index: int, **held: Any) -> Answer:
        [prompt] = linking_model.prompts([mentions[index]], settings)
        assert prompt is not None, "check_prompts has seen them all"
        [embedded], _ = linking_model.embed([prompt], train=False)
        return generate_names(linking_model, settings, embedded, **held)

    def of_our_trie(_: int, ids: Tensor) -> list[int]:
        node = built.walk(ids.tolist())
        tokens = [] if node is None else built.children_of(np.array([node])).tokens[0].tolist()
        return [end_id if token == built.end else token for token in tokens] or [end_id]

    def of_labels_trie(_: int, ids: Tensor) -> list[int]:
        return built.get(ids.tolist()) or [end_id]

    if way in ("ours", "ours_sets"):
        return ours
    if way == "official":
        reference = Official(linking_model, settings, built)
        return lambda index: reference.link(mentions[index], ranked[index])
    functions = {"generate_with_our_trie": of_our_trie, "gliner_labels_trie": of_labels_trie}
    if way in functions:
        return partial(generate, prefix_allowed_tokens_fn=functions[way])
    return partial(generate, logits_processor=[built])


@contextmanager
def timed_masks(clock: StageClock) -> Iterator[None]:
    """Count what finds and applies `generate`'s masks as the stage "constraint"."""
    owners = (MatcherMasks, logits_process.PrefixConstrainedLogitsProcessor)
    originals = [owner.__call__ for owner in owners]
    for owner, original in zip(owners, originals, strict=True):
        owner.__call__ = clock.wrap("constraint", original)
    try:
        yield
    finally:
        for owner, original in zip(owners, originals, strict=True):
            owner.__call__ = original


def settled_mb() -> float:
    """Memory of this process without what it no longer uses, as far as the C library gives it back."""
    gc.collect()
    with suppress(AttributeError):  # glibc's alone
        ctypes.CDLL(None).malloc_trim(0)
    return resident_mb()


def run_case(way: str, paths: Mapping[str, str], names: str, captions: str, demonstrations: int) -> dict[str, Any]:
    """Build what holds the names, and find those of each mention; `left_out` or `stopped` says why not."""
    models = ModelPaths(**{name: Path(path) for name, path in paths.items()})  # type: ignore[arg-type]
    subject = Subject(
        **json.loads(Path(names).read_text(encoding="utf8")), tokenizer=load_tokenizer(paths["language_model"])
    )
    try:
        build = LOAD[way](subject)
    except ImportError as error:
        return {"left_out": first_line(error)}
    start_mb, start = settled_mb(), time.perf_counter()
    try:
        built = build(subject)
    except Exception as error:  # the engines raise what they like
        return {"names": len(subject.names), "stopped": f"{type(error).__name__}: {first_line(error)[:200]}"}
    result: dict[str, Any] = {"names": len(subject.names), "build_seconds": round(time.perf_counter() - start, 3)}
    result["built_mb"] = round(max(0.0, settled_mb() - start_mb), 1)
    print(json.dumps(result), flush=True)  # in case the search does not return
    splits = json.loads(Path(captions).read_text(encoding="utf8"))
    train, test = ([Caption(*row) for row in splits[split]] for split in ("train", "test"))
    nlp = make_pipeline(models, train, demonstrations)
    linker = linker_in(nlp)
    linker.configure(demonstration_sets=SETS if way == "ours_sets" else 0)
    linking_model, settings = linker.linking_model, linker.settings
    assert linking_model.end_id(settings) == subject.end_id
    assert linking_model.language_model.vocab_size == subject.vocab_size
    mentions = mentions_of(nlp, test)
    ranked = [linking_model.rank_demonstrations(Query(mention.mention, mention.text), settings) for mention in mentions]
    lengths = check_prompts(linking_model, Official(linking_model, settings, {}), mentions, ranked)
    search = make_search(way, built, linker, mentions, ranked)
    clock, passes = StageClock(), ForwardClock()
    try:
        for index in range(len(mentions) if way == "ours_sets" else 1):  # warm; all sets have been read then
            search(index)
        start = time.perf_counter()
        with watched(nlp, clock), timed_masks(clock), passes.on(linking_model.language_model), clock.stage("other"):
            answers = [search(index) for index in range(len(mentions))]
        seconds = time.perf_counter() - start
    except Exception as error:
        return {**result, "stopped": f"{type(error).__name__}: {first_line(error)[:200]}"}
    return {
        **result,
        "ms_per_mention": round(1000 * seconds / len(mentions), 1),
        "passes_per_mention": round(passes.passes / len(mentions), 2),
        "mask_ms_per_pass": round(1000 * clock.seconds["constraint"] / passes.passes, 3),
        "prompt_tokens": lengths,
        "answers": answers,
    }


if __name__ == "__main__":
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    warnings.simplefilter("ignore")  # transformers about generate's arguments
    print(json.dumps(run_case(**json.loads(sys.argv[1]))))
