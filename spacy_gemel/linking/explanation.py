"""Why a mention is linked as it is: its prompt, its demonstrations, and each candidate's features and their parts."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from spacy_gemel.linking.candidates import answer_id
from spacy_gemel.linking.mention import Mention
from spacy_gemel.linking.prompt import Prompt
from spacy_gemel.linking.retrievers import Query, SimilarityRetriever
from spacy_gemel.linking.settings import LinkerSettings

if TYPE_CHECKING:
    from spacy_gemel.linking.model import LinkingModel


def explain(model: "LinkingModel", mentions: Sequence[Mention], index: int, settings: LinkerSettings) -> dict[str, Any]:
    """The explanation of one mention of a doc, as JSON.

    Args:
        model: The loaded models.
        mentions: Of the doc: what one means may depend on the others.
        index: Of the mention to explain.
        settings: Those in force.

    Returns:
        `prompt`: its text, with "<image>" for each visual prefix. `demonstrations`: those in it, the most similar last,
        with their `similarity` to the mention, None from a retriever that has none. `candidates`: best first, with
        `kb_id`, `name`, `score`, `probability`, and by name the `features` and the `parts`, each feature times its
        weight, that add up to the decision; without a fitted decision there are no parts. `answer`, `nil`, the
        probability of NIL, and `answer_without_image`, None if no image was used.
    """
    mention = mentions[index]
    [prompt] = model.prompts([mention], settings)
    batch, values, columns, answers = model.consider(mentions, settings)
    answer = answers[index]
    features = {
        (entity.kb_id, name.name): dict(zip(columns, row, strict=True))
        for entity, name, row in zip(batch[index].entities, batch[index].names, values[index].tolist(), strict=True)
    }
    weights = {} if model.decision is None else model.decision.weights
    candidates = []
    for candidate in answer.candidates:
        computed = features.get((candidate.kb_id, candidate.name), {})
        products = {name: weights[name] * value for name, value in computed.items() if weights.get(name)}
        candidates.append({**candidate._asdict(), "features": computed, "parts": products})
    without = None
    if settings.use_image and mention.features is not None:
        blind = [replace(each, features=None) for each in mentions]
        without = answer_id(model.link(blind, settings)[index], settings.threshold)
    return {
        "prompt": None if prompt is None else _text(prompt, model),
        "demonstrations": [] if prompt is None else _demonstrations(prompt, mention, model),
        "candidates": candidates,
        "nil": answer.nil,
        "answer": answer_id(answer, settings.threshold),
        "answer_without_image": without,
    }


def _text(prompt: Prompt, model: "LinkingModel") -> str:
    tokenizer = model.language_model.tokenizer.tokenizer
    return "".join(
        ("<image>" if segment.has_image else "") + tokenizer.decode(list(segment.ids)) for segment in prompt.segments
    )


def _demonstrations(prompt: Prompt, mention: Mention, model: "LinkingModel") -> list[dict[str, Any]]:
    similarity = None
    if isinstance(model.retriever, SimilarityRetriever) and prompt.demonstrations:
        key = model.retriever.key(Query(mention.mention, mention.text, mention.vector, mention.features))
        similarity = None if key is None else model.retriever.scores([key])[0]
    rows = []
    for index in prompt.demonstrations:
        each = model.store[index]
        row: dict[str, Any] = {"text": each.text, "mention": each.mention, "name": each.name, "kb_id": each.kb_id}
        rows.append({**row, "similarity": None if similarity is None else float(similarity[index])})
    return rows
