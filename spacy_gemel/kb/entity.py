"""One entity of the knowledge base, and the one error that a knowledge base raises."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entity:
    """An entity of a knowledge base.

    Attributes:
        kb_id: its id, unique in the knowledge base.
        name: the name that the language model writes; entities may share one.
        count: how often it is linked somewhere. Of the entities that share a name, the most frequent comes first.
        aliases: other names. They are not in the trie.
        description: free text.
    """

    kb_id: str
    name: str
    count: int = 0
    aliases: tuple[str, ...] = ()
    description: str | None = None


def description_text(entity: Entity) -> str:
    """The text that stands for an entity: "name. description", or the name if there is no description."""
    return f"{entity.name}. {entity.description}" if entity.description else entity.name


class KBError(ValueError):
    """A knowledge base cannot be built, opened or trusted; the message says what to do."""


def build_command(kb_dir: object = "KB_DIR", tokenizer: str = "NAME_OR_PATH") -> str:
    """The command line that builds a knowledge base, for error messages."""
    return f"python -m spacy_gemel build-kb ENTITIES.jsonl {kb_dir} --tokenizer {tokenizer}"
