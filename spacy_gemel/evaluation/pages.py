"""The templates of the pages that are written: all text is escaped, and a name that a template lacks is an error."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def templates(room: str = "evaluation") -> "Environment":
    """The environment of the templates that lie in one of the package's own folders."""
    # jinja2 comes with spaCy, but only pages need it
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("spacy_gemel", room),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
