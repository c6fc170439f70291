"""Which entities a mention string calls, and when two spellings are the same."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from tqdm import tqdm

if TYPE_CHECKING:
    from research.baselines.options import PeerOptions
    from spacy_gemel.kb.knowledge_base import KnowledgeBase


class Surfaces(Protocol):
    """The names and aliases of a knowledge base."""

    def key(self, mention: str) -> str:
        """What two spellings of one mention share."""

    def called(self, mention: str) -> tuple[list[int], list[int]]:
        """Rows of the entities with this name, and of those with this alias and another name; each ascending."""


class KBSurfaces:
    """By the knowledge base's own index.

    A mention is compared as it is written. Names and aliases are compared as golds are: underscores count as blanks,
    and the first letter's case does not count, as in Wikipedia's titles; with `exact` they too are compared as written.
    """

    def __init__(self, kb: "KnowledgeBase", *, exact: bool) -> None:
        self._kb = kb
        self._exact = exact

    def key(self, mention: str) -> str:
        """The mention itself."""
        return mention

    def called(self, mention: str) -> tuple[list[int], list[int]]:
        """Rows of the entities with this name, and of those with this alias and another name; each ascending."""
        named, aliased = self._kb.rows_by_surface(mention)
        if not self._exact:
            return named, aliased
        same = [row for row in named if self._kb.entity(row).name == mention]
        others = {row for row in [*named, *aliased] if mention in self._kb.entity(row).aliases}
        return same, sorted(others - set(same))


class FoldedSurfaces:
    """Mentions, names and aliases compared without regard to case. Reads the whole knowledge base once."""

    def __init__(self, kb: "KnowledgeBase", *, progress: bool = True) -> None:
        self._named: dict[str, list[int]] = {}
        self._aliased: dict[str, list[int]] = {}
        for row in tqdm(range(len(kb)), "index names", unit=" entities", disable=not progress):
            entity = kb.entity(row)
            name = self.key(entity.name)
            self._named.setdefault(name, []).append(row)
            for alias in dict.fromkeys(map(self.key, entity.aliases)):
                if alias != name:
                    self._aliased.setdefault(alias, []).append(row)

    def key(self, mention: str) -> str:
        """The mention with its case folded."""
        return mention.casefold()

    def called(self, mention: str) -> tuple[list[int], list[int]]:
        """Rows of the entities with this name, and of those with this alias and another name; each ascending."""
        key = self.key(mention)
        return self._named.get(key, []), self._aliased.get(key, [])


def surfaces(kb: "KnowledgeBase", options: "PeerOptions", *, exact: bool) -> Surfaces:
    """Those that the options ask for. exact: names and aliases as they are written, where case is heeded."""
    return FoldedSurfaces(kb, progress=options.progress) if options.ignore_case else KBSurfaces(kb, exact=exact)


def by_count(kb: "KnowledgeBase") -> Callable[[int], tuple[int, int]]:
    """The order among entities of one standing: the more often linked, then the earlier in the knowledge base."""
    return lambda row: (-kb.count(row), row)
