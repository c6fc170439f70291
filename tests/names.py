"""Names with their scores and entities, as the search gives them."""

from spacy_gemel.kb.entity import Entity
from spacy_gemel.linking.candidates import ScoredName


def scored(name: str, score: float, *entities: tuple[str, int], searched: bool = True) -> ScoredName:
    """A name with the ids and counts of the entities that bear it; by default one that is called as the name."""
    bearers = [Entity(kb_id, name, count) for kb_id, count in entities or [(name, 0)]]
    return ScoredName(name, score, bearers, range(len(bearers)), len(name.split()), searched)
