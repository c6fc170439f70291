"""How long a config trains, beside what spaCy's own loop does with its settings."""

import pytest
import spacy
from spacy.training import Example
from spacy.training.batchers import configure_minibatch
from spacy.training.loop import create_train_batches, train_while_improving
from thinc.api import Adam

from research.sizing.plan import Training


def trained(training: Training, docs: int) -> tuple[int, int, int]:
    """Updates, evaluations and docs seen in a run of spaCy's loop over docs that nothing is learned from."""
    nlp = spacy.blank("en")
    doc = nlp.make_doc("x")
    examples = [Example(doc, doc)] * docs
    evaluations: list[int] = []

    def evaluate() -> tuple[float, dict[str, float]]:
        evaluations.append(1)
        return 0.0, {}

    assert training.batch is not None
    assert training.eval_frequency is not None
    steps = train_while_improving(
        nlp,
        Adam(0.001),
        create_train_batches(nlp, lambda nlp: examples, configure_minibatch(training.batch), training.epochs or 0),
        evaluate,
        dropout=0.0,
        eval_frequency=training.eval_frequency,
        accumulate_gradient=1,
        patience=0,
        max_steps=training.steps or 0,
        exclude=[],
        annotating_components=[],
        before_update=None,
    )
    sizes = [len(batch) for batch, _, _ in steps]
    return len(sizes), len(evaluations), sum(sizes)


@pytest.mark.parametrize(
    ("training", "docs"),
    [
        (Training(epochs=5, batch=8, eval_frequency=9), 61),
        (Training(epochs=3, batch=8, eval_frequency=8), 64),
        (Training(steps=20, batch=4, eval_frequency=10), 60),
        (Training(steps=19, batch=4, eval_frequency=10), 60),
        (Training(epochs=2, steps=20, batch=4, eval_frequency=3), 60),
        (Training(epochs=9, steps=20, batch=4, eval_frequency=100), 60),
    ],
)
def test_updates_are_those_that_spacy_makes(training: Training, docs: int) -> None:
    updates, evaluations, seen = trained(training, docs)
    assert training.updates(docs, epochs=1) == updates
    assert training.evaluations(docs, epochs=1) == evaluations
    assert training.passes(docs, epochs=1) == pytest.approx(seen / docs)


def test_what_a_config_does_not_say_is_not_made_up() -> None:
    by_words = Training(epochs=5, eval_frequency=100)
    assert (by_words.updates(50, 3), by_words.evaluations(50, 3), by_words.passes(50, 3)) == (None, None, 5)
    endless = Training(batch=5, eval_frequency=10)
    assert (endless.updates(50, 3), endless.evaluations(50, 3), endless.passes(50, 3)) == (30, 3, 3)
    assert Training().evaluations(50, 3) is None
    assert Training(steps=30, eval_frequency=10).evaluations(50, 3) == 4
    assert Training(steps=30, eval_frequency=10).passes(50, 3) == 3
    # it may end with its fifth epoch, whenever that is
    assert Training(epochs=5, steps=30, eval_frequency=10).evaluations(50, 3) is None
    message = [Training(epochs=5), Training(steps=30, batch=4), Training(steps=30), Training(batch=4), Training()]
    assert [training.tells_passes for training in message] == [True, True, False, False, False]
