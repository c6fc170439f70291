"""Where a mention's time goes: the seconds of each stage, less those of the stages inside it."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spacy.language import Language

NAMES = (
    "retrieve",
    "tokenise",
    "embed",
    "encode image",
    "map",
    "prefill",
    "search steps",
    "constraint",
    "write",
    "other",
)


class StageClock:
    """Adds up the time between entering and leaving stages; time in an inner stage counts there alone."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(NAMES, 0.0)
        self._now = now
        self._inside: list[str] = []
        self._since = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """The stage that all until the end of the block belongs to."""
        self._count()
        self._inside.append(name)
        try:
            yield
        finally:
            self._count()
            self._inside.pop()

    def _count(self) -> None:
        now = self._now()
        if self._inside:
            self.seconds[self._inside[-1]] += now - self._since
        self._since = now

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time counted for a stage."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name):
                return function(*args, **kwargs)

        return timed

    def shares(self, mentions: int) -> dict[str, dict[str, float]]:
        """Milliseconds of a mention and the share of the whole, by stage."""
        whole = sum(self.seconds.values()) or 1.0
        return {
            name: {"ms_per_mention": round(1000 * seconds / mentions, 3), "share": round(seconds / whole, 4)}
            for name, seconds in self.seconds.items()
        }


@contextmanager
def watched(nlp: "Language", clock: StageClock) -> Iterator[None]:
    """Count what the pipeline's linker does meanwhile, stage by stage."""
    from benchmarks.subject import linker_in
    from spacy_gemel.decoding.decoder import SequentialDecoder, SharedPrefixDecoder
    from spacy_gemel.linking import model as module

    pipe = linker_in(nlp)
    linking_model = pipe.linking_model
    points: Sequence[tuple[Any, str, str]] = (
        (pipe.retriever, "prepare", "retrieve"),
        (pipe.retriever, "rank", "retrieve"),
        (linking_model.language_model.tokenizer, "encode", "tokenise"),
        (linking_model.prompt_embedder, "embed", "embed"),
        (pipe._reader, "read", "encode image"),
        (linking_model, "embed", "map"),  # less the embedder, which it calls
        (linking_model.decoder, "prefill", "prefill"),
        (SharedPrefixDecoder, "extend", "search steps"),
        (SequentialDecoder, "extend", "search steps"),
        (module, "beam_search", "constraint"),  # all of the search but the language model
        (module, "exact_search", "constraint"),
        (pipe, "set_annotations", "write"),
    )
    originals = [(owner, name, vars(owner).get(name)) for owner, name, _ in points]
    for owner, name, stage in points:
        setattr(owner, name, clock.wrap(stage, getattr(owner, name)))
    try:
        yield
    finally:
        for owner, name, original in originals:
            if original is None:  # it was its class's
                delattr(owner, name)
            else:
                setattr(owner, name, original)
