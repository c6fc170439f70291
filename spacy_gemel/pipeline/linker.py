"""The registered factory of the pipe `gemel_linker`: its settings and their defaults."""

from collections.abc import Callable
from typing import Any, Literal

from spacy.language import Language
from thinc.api import Config, Model

from spacy_gemel.linking.settings import Settings
from spacy_gemel.pipeline.gemel_linker import GemelLinker

DEFAULT_CONFIG = Config().from_str(
    """
    [gemel_linker]
    beam_size = 5
    n_candidates = 5
    max_name_tokens = 32
    name_end = "newline"
    n_demonstrations = 16
    n_training_demonstrations = null
    threshold = null
    labels_discard = []
    use_gold_ents = true
    overwrite = true
    context = "doc"
    n_sents = 0
    window = 64
    use_image = true
    constrained = true
    prior_weight = 0.0
    batch_tokens = 8192
    bundle_models = false
    image_features = null

    [gemel_linker.model]
    @architectures = "spacy_gemel.LinearMapper.v1"
    prefix_length = 4

    [gemel_linker.language_model]
    @misc = "spacy_gemel.CausalLM.v1"
    name = "meta-llama/Llama-2-7b-hf"

    [gemel_linker.vision_encoder]
    @misc = "spacy_gemel.OpenCLIP.v1"
    name = "ViT-L-14-quickgelu"
    pretrained = "openai"

    [gemel_linker.retriever]
    @misc = "spacy_gemel.SentenceTransformerRetriever.v1"
    name = "princeton-nlp/sup-simcse-roberta-large"

    [gemel_linker.scorer]
    @scorers = "spacy_gemel.linker_scorer.v1"
    """
)["gemel_linker"]


@Language.factory(
    "gemel_linker",
    requires=["doc.ents", "token.ent_iob", "token.ent_type"],
    assigns=["token.ent_kb_id"],
    default_config=DEFAULT_CONFIG,
    default_score_weights={"nel_micro_f": 1.0, "nel_micro_r": None, "nel_micro_p": None, "nel_nil_f": 0.0},
)
def make_gemel_linker(
    nlp: Language,
    name: str,
    model: Model[Any, Any],
    language_model: Any,
    vision_encoder: Any,
    retriever: Any,
    beam_size: int,
    n_candidates: int,
    max_name_tokens: int,
    name_end: Literal["newline", "eos"],
    n_demonstrations: int,
    n_training_demonstrations: int | None,
    threshold: float | None,
    labels_discard: list[str],
    use_gold_ents: bool,
    overwrite: bool,
    context: Literal["doc", "sentence", "window"],
    n_sents: int,
    window: int,
    use_image: bool,
    constrained: bool,
    prior_weight: float,
    batch_tokens: int,
    bundle_models: bool,
    image_features: str | None,
    scorer: Callable[..., Any] | None,
) -> GemelLinker:
    """Make the pipe `gemel_linker`: GEMEL (Shi et al. 2024, arXiv 2306.12725), and what its settings add.

    model: the mapper, the only part that is trained.
    language_model, vision_encoder: frozen models, named; see spacy_gemel.registry.
    retriever: chooses the demonstrations.
    beam_size: beams of the search (the paper's 5).
    n_candidates: names to find for each mention, at most beam_size; entities that share a name all count.
    max_name_tokens: longest name, in tokens without its end (the paper's 32).
    name_end: what ends a name: "newline", as in a demonstration, or "eos", as in the paper.
    n_demonstrations: training examples shown in a prompt (the paper's 16).
    n_training_demonstrations: how many of them are shown while the mapper learns, if there are so many; null for
        all, as in the paper. Fewer make a step cheaper.
    threshold: a mention whose best candidate's probability is below it gets "NIL"; null for never.
    labels_discard: entities of these labels are "NIL" without being looked at, and are not trained on.
    use_gold_ents: train on all gold entities; false for only those that the predicted doc has too, as the components
        before this one (annotating_components) found them.
    overwrite: false to leave entities as they are that have an id already.
    context: the text given to the language model: "doc" for all of it, "sentence" for the mention's sentence, which
        needs a component that sets sentences, or "window" for the tokens around the mention, which needs none.
    n_sents: with "sentence", neighbouring sentences on each side.
    window: with "window", tokens on each side.
    use_image: false to link from the text alone.
    constrained: false to let the model say anything; what is no entity's name exactly is then "NIL".
    prior_weight: how much a candidate's score heeds what its mention usually means, in the training examples and in the
        knowledge base's names and aliases; 0 for not at all. `python -m spacy_gemel fit-prior` fits it on dev data.
    batch_tokens: tokens that the language model holds at once: prompts, their padding and the room for their beams;
        halved where memory runs out. More may be faster on a large GPU.
    bundle_models: save the frozen models inside the pipe, so that it works where they are not.
    image_features: a folder that `encode-images` wrote: an image in it is not encoded again. It only saves time.
    """
    settings = Settings(
        beam_size=beam_size,
        n_candidates=n_candidates,
        max_name_tokens=max_name_tokens,
        name_end=name_end,
        n_demonstrations=n_demonstrations,
        n_training_demonstrations=n_training_demonstrations,
        threshold=threshold,
        labels_discard=tuple(labels_discard),
        use_gold_ents=use_gold_ents,
        overwrite=overwrite,
        context=context,
        n_sents=n_sents,
        window=window,
        use_image=use_image,
        constrained=constrained,
        prior_weight=prior_weight,
        batch_tokens=batch_tokens,
    )
    return GemelLinker(
        nlp.vocab,
        model,
        name,
        language_model=language_model,
        vision_encoder=vision_encoder,
        retriever=retriever,
        settings=settings,
        bundle_models=bundle_models,
        image_features=image_features,
        scorer=scorer,
    )
