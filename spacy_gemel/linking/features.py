"""The features that a decision weighs, each a class with the columns that it computes for a mention's candidates.

A feature is registered in registry.py and chosen in the config's block `features`; a decision names its columns.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.kb.index import surface_key
from spacy_gemel.linking.candidates import Options, ScoredName
from spacy_gemel.linking.decision import NAME_SHARE
from spacy_gemel.linking.demonstrations import NO_IMAGE
from spacy_gemel.linking.descriptions import shared_words
from spacy_gemel.linking.prior import FLOOR, fold
from spacy_gemel.linking.settings import LinkerSettings

if TYPE_CHECKING:
    from spacy_gemel.linking.demonstrations import DemonstrationStore
    from spacy_gemel.linking.descriptions import DescriptionIndex, ImageDescriptions
    from spacy_gemel.linking.prior import MentionPrior

FloatArray = NDArray[np.float64]


class Evidence(Protocol):
    """What features are computed from, beside the candidates: a `LinkingModel` has it.

    descriptions: None if the retriever has no sentence encoder. image_descriptions: None if the vision encoder has no
    text tower. pictures_of: see the function of this name.
    """

    descriptions: "DescriptionIndex | None"
    image_descriptions: "ImageDescriptions | None"
    pictures_of: dict[str, list[int]]

    @property
    def prior(self) -> "MentionPrior":
        """P(entity | mention)."""
        ...

    @property
    def store(self) -> "DemonstrationStore":
        """The demonstrations that may be shown."""
        ...

    def share(self, name: ScoredName, text: str) -> Sequence[float]:
        """How much of a name's probability each of its entities has."""
        ...


class Feature(Protocol):
    """Computes its columns for the candidates of mentions."""

    @property
    def columns(self) -> Sequence[str]:
        """Their names, each unique among all features."""
        ...

    def values(self, batch: Sequence[Options], evidence: Evidence, settings: LinkerSettings) -> list[FloatArray]:
        """Of each mention, (candidates, columns). `batch` has all mentions of its docs that are linked."""
        ...


def compute(
    features: Sequence[Feature], batch: Sequence[Options], evidence: Evidence, settings: LinkerSettings
) -> tuple[list[FloatArray], list[str]]:
    """All features of each mention's candidates side by side, (candidates, columns), and the columns' names."""
    columns = [name for feature in features for name in feature.columns]
    tables = [feature.values(batch, evidence, settings) for feature in features]
    empty = [np.zeros((len(options.entities), 0)) for options in batch]
    return [np.concatenate(each, axis=1) for each in zip(empty, *tables, strict=True)], columns


def _stack(rows: Sequence[Sequence[float]], width: int) -> FloatArray:
    return np.array(rows, dtype=np.float64).reshape(len(rows), width)


class ScoreFeature:
    """The search's score of the name (paper section 3.3), and how far it falls behind the mention's best."""

    columns = ("score", "behind")

    def values(self, batch: Sequence[Options], evidence: Evidence, settings: LinkerSettings) -> list[FloatArray]:
        """See Feature."""
        results = []
        for options in batch:
            scores = np.array([name.score for name in options.names])
            results.append(_stack([*zip(scores, scores - max(scores, default=0.0), strict=True)], 2))
        return results


class NameProbabilityFeature:
    """log of the least share that a name has of all names' probability, by an exact search; 0 after any other.

    The score tells names of one mention apart; this also tells how sure the model is of them, which NIL can use.
    """

    columns = ("name_probability",)

    def values(self, batch: Sequence[Options], evidence: Evidence, settings: LinkerSettings) -> list[FloatArray]:
        """See Feature."""
        results = []
        for options in batch:
            values = np.zeros((len(options.names), 1))
            if options.certificate is not None:
                sums = {id(name): name.score * (name.tokens + 1) for name in options.names}
                found = np.logaddexp.reduce([sums[id(name)] for name in options.distinct_names if name.searched])
                total = found - np.log(options.certificate.mass[0])
                values[:, 0] = np.maximum([sums[id(name)] - total for name in options.names], LEAST_LOG_PROBABILITY)
            results.append(values)
        return results


LEAST_LOG_PROBABILITY = -20.0


class DemonstratedFeature:
    """Whether the entity stands in a demonstration of the prompt, from which models like to copy."""

    columns = ("demonstrated",)

    def values(self, batch: Sequence[Options], evidence: Evidence, settings: LinkerSettings) -> list[FloatArray]:
        """See Feature."""
        return [_stack([[entity.kb_id in each.demonstrated] for entity in each.entities], 1) for each in batch]


class PriorFeature:
    """log P(entity | mention), commonness (Milne and Witten 2008), as `MentionPrior` smooths it."""

    columns = ("prior",)

    def values(self, batch: Sequence[Options], evidence: Evidence, settings: LinkerSettings) -> list[FloatArray]:
        """See Feature."""
        results = []
        for options in batch:
            prior = evidence.prior.of(options.mention.mention)
            results.append(_stack([[np.log(prior.get(each.kb_id, 0.0) + FLOOR)] for each in options.entities], 1))
        return results


class SurfaceFeature:
    """How the mention matches the entity: as its name, as an alias, each folded too, and by words.

    `mention_words`: the share of the mention's words that the name has, "Clinton" in "Hillary Clinton"; `name_words`:
    the share of the name's words that the mention has; `text_words`: the share of its other words that the text has;
    `alias_words`: the words that mention and alias share, among all of theirs, for the best alias.
    """

    columns = (
        "is_name",
        "is_alias",
        "folded_name",
        "folded_alias",
        "mention_words",
        "name_words",
        "text_words",
        "alias_words",
    )

    def values(self, batch: Sequence[Options], evidence: Evidence, settings: LinkerSettings) -> list[FloatArray]:
        """See Feature."""
        results = []
        for options in batch:
            key, folded = surface_key(options.mention.mention), fold(options.mention.mention)
            words, text = {*folded.split()}, {*fold(options.mention.text).split()}
            rows = []
            for entity in options.entities:
                name, aliases = fold(entity.name), [fold(alias) for alias in entity.aliases]
                name_words = {*name.split()}
                rest = name_words - words
                is_name, is_alias = surface_key(entity.name) == key, key in map(surface_key, entity.aliases)
                overlaps = (len(words & each) / max(len(words | each), 1) for each in ({*a.split()} for a in aliases))
                rows.append(
                    [
                        is_name,
                        is_alias,
                        not is_name and name == folded,
                        not is_alias and folded in aliases,
                        len(words & name_words) / max(len(words), 1),
                        len(words & name_words) / max(len(name_words), 1),
                        len(rest & text) / max(len(rest), 1),
                        max(overlaps, default=0.0),
                    ]
                )
            results.append(_stack(rows, len(self.columns)))
        return results


class NameShareFeature:
    """log of the entity's share in the name's probability, among the bearers of one name: by description and count.

    Its weight is fixed at 1: entities of one name have the same score, and few dev sets have enough of them to fit on.
    """

    columns = (NAME_SHARE,)

    def values(self, batch: Sequence[Options], evidence: Evidence, settings: LinkerSettings) -> list[FloatArray]:
        """See Feature."""
        results = []
        for options in batch:
            shares = {
                (name.name, entity.kb_id): share
                for name in options.distinct_names
                for entity, share in zip(name.entities, evidence.share(name, options.mention.text), strict=True)
            }
            pairs = zip(options.names, options.entities, strict=True)
            rows = [[np.log(max(shares[name.name, entity.kb_id], LEAST_SHARE))] for name, entity in pairs]
            results.append(_stack(rows, 1))
        return results


LEAST_SHARE = 1e-4  # of an entity that was never counted beside one that was


class LengthFeature:
    """The name's tokens: dividing the log-probability by them favours long names that predict themselves."""

    columns = ("tokens",)

    def values(self, batch: Sequence[Options], evidence: Evidence, settings: LinkerSettings) -> list[FloatArray]:
        """See Feature."""
        return [_stack([[name.tokens] for name in options.names], 1) for options in batch]


class DescriptionFeature:
    """The cosines of the text and of the mention with "name. description", the words that text and description share.

    By the retriever's sentence encoder, untrained: zero-shot linking by descriptions (Wu et al. 2020, 1911.03814).
    `described` is whether there is a description.
    """

    columns = ("has_description", "text_description", "mention_description", "description_words")

    def values(self, batch: Sequence[Options], evidence: Evidence, settings: LinkerSettings) -> list[FloatArray]:
        """See Feature."""
        rows = [options.rows for options in batch]
        by_text = by_mention = [np.zeros(len(each), dtype=np.float32) for each in rows]
        if evidence.descriptions is not None:
            by_text = evidence.descriptions.similarity([options.mention.text for options in batch], rows)
            by_mention = evidence.descriptions.similarity([options.mention.mention for options in batch], rows)
        results = []
        for options, texts, mentions in zip(batch, by_text, by_mention, strict=True):
            has_description = [bool(entity.description) for entity in options.entities]
            words = [shared_words(options.mention.text, entity.description) for entity in options.entities]
            results.append(np.stack([has_description, texts, mentions, words], axis=1).astype(np.float64))
        return results


class ImageDescriptionFeature:
    """The cosine of the doc's image with "name. description" by a CLIP with its text tower, and if there is an image.

    Untrained, as in CLIPPINGS (Arora et al. 2023). Raises ValueError if the vision encoder has no text tower.
    """

    columns = ("has_image", "image_description")

    def values(self, batch: Sequence[Options], evidence: Evidence, settings: LinkerSettings) -> list[FloatArray]:
        """See Feature."""
        if evidence.image_descriptions is None:
            raise ValueError(
                "gemel_linker: the feature ImageDescriptionFeature needs a CLIP with its text tower: set text = true "
                "in the block vision_encoder, @misc = spacy_gemel.OpenCLIP.v1, or leave the feature out."
            )
        results = []
        for options in batch:
            rows, features = np.zeros((len(options.entities), 2)), options.mention.features
            if features is not None and settings.use_image and options.entities:
                rows[:, 0] = 1.0
                rows[:, 1] = evidence.image_descriptions.similarity(features, options.entities)
            results.append(rows)
        return results


class PictureFeature:
    """The highest cosine of the doc's image with the pictures of the entity's demonstrations, and if it has any.

    A nearest neighbour on the encoder's standardised features, as in CLIPPINGS (Arora et al. 2023).
    """

    columns = ("pictured", "picture")

    def values(self, batch: Sequence[Options], evidence: Evidence, settings: LinkerSettings) -> list[FloatArray]:
        """See Feature."""
        results = []
        for options in batch:
            rows, features = np.zeros((len(options.entities), 2)), options.mention.features
            if features is not None and settings.use_image:
                indices = [evidence.pictures_of.get(entity.kb_id, []) for entity in options.entities]
                cosines = evidence.store.picture_similarity([index for each in indices for index in each], features)
                ends = np.cumsum([len(each) for each in indices])
                for row, end, each in zip(rows, ends, indices, strict=True):
                    if each:
                        row[:] = 1.0, cosines[end - len(each) : end].max()
            results.append(rows)
        return results


class AgreementFeature:
    """How well an entity goes with what the doc's other mentions may mean: a second look, once all have candidates.

    By the cosine of descriptions, weighted by the other mention's probabilities, and by name chains, "Holmes" beside
    "Sherlock Holmes" (all mentions of a text at once: ReLiK, Orlando et al. 2024).
    """

    columns = ("agreement", "chain")

    def values(self, batch: Sequence[Options], evidence: Evidence, settings: LinkerSettings) -> list[FloatArray]:
        """See Feature."""
        docs: dict[int, list[int]] = {}
        for number, options in enumerate(batch):
            docs.setdefault(options.mention.doc, []).append(number)
        results = [np.zeros((len(options.entities), 2)) for options in batch]
        for numbers in docs.values():
            for number in numbers:
                companions = [batch[other] for other in numbers if other != number]
                if companions and batch[number].entities:
                    results[number] = self._beside(batch[number], companions, evidence)
        return results

    def _beside(self, options: Options, companions: Sequence[Options], evidence: Evidence) -> FloatArray:
        values = np.zeros((len(options.entities), 2))
        words = {*fold(options.mention.mention).split()}
        ids = [entity.kb_id for entity in options.entities]
        cosines = []
        for other in companions:
            if not other.entities:
                continue
            shares = _shares(other.names)
            longer = {*fold(other.mention.mention).split()}
            if words < longer:
                by_id = {entity.kb_id: share for entity, share in zip(other.entities, shares, strict=True)}
                values[:, 1] = np.maximum(values[:, 1], [by_id.get(kb_id, 0.0) for kb_id in ids])
            if evidence.descriptions is not None and words != longer:
                best = np.argsort(-shares, kind="stable")[:_LOOKED_AT]
                rows = [other.rows[index] for index in best]
                cosines.append(evidence.descriptions.between(options.rows, rows) @ (shares[best] / shares[best].sum()))
        if cosines:
            values[:, 0] = np.mean(cosines, axis=0)
        return values


_LOOKED_AT = 3  # candidates of another mention


def _shares(names: Sequence[ScoredName]) -> FloatArray:
    scores = np.array([name.score for name in names])
    weights = np.exp(scores - scores.max())
    return np.asarray(weights / weights.sum())


def pictures_of(store: "object") -> dict[str, list[int]]:
    """The indices of the demonstrations with a picture, by their entity's id."""
    indices: dict[str, list[int]] = {}
    for index, demonstration in enumerate(store):  # type: ignore[arg-type,var-annotated]
        if demonstration.image != NO_IMAGE:
            indices.setdefault(demonstration.kb_id, []).append(index)
    return indices
