"""The mapper's first stage: image -> name without demonstrations, as LLaVA and mPLUG-Owl align an encoder first."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from thinc.api import Adam, warmup_linear
from tqdm import trange

from spacy_gemel.linking.demonstrations import NO_IMAGE
from spacy_gemel.linking.mention import Mention
from spacy_gemel.linking.settings import LinkerSettings
from spacy_gemel.models.mapper import fit_to_embeddings, standardise_by

if TYPE_CHECKING:
    from spacy_gemel.linking.model import LinkingModel


class Alignment:
    """How a mapper is aligned to its language model before it is trained with demonstrations.

    Args:
        passes: Over the training mentions that have an image.
        batch_size: Mentions in a step.
        rate: The highest learning rate, after a tenth of the steps; it then falls to 0.
        copies: Altered copies of each image, encoded once; a step sees one of them, or the image as it is.
        noise: Standard deviation of the noise that a step adds to the standardised features.

    Raises:
        ValueError: if a value makes no sense.
    """

    def __init__(
        self, passes: int = 10, batch_size: int = 16, rate: float = 0.001, copies: int = 6, noise: float = 0.5
    ) -> None:
        if min(passes, batch_size) < 1 or rate <= 0 or min(copies, noise) < 0:
            values = f"passes {passes}, batch_size {batch_size}, rate {rate}, copies {copies}, noise {noise}"
            raise ValueError(
                "alignment: passes and batch_size must be at least 1, rate above 0, copies and noise 0 or more, not "
                f"{values}."
            )
        self.passes, self.batch_size, self.rate = passes, batch_size, rate
        self.copies, self.noise = copies, noise

    def run(
        self,
        model: "LinkingModel",
        features: Sequence[NDArray[np.float32]],
        settings: LinkerSettings,
        rng: np.random.Generator,
    ) -> list[float]:
        """Start the mapper by ridge regression and train it on the store's mentions, without any demonstration.

        Args:
            model: The loaded models; its store's mentions are what is learned.
            features: Those of the store's images, (images, d_v), then those of each altered copy.
            settings: The linker's; demonstrations are left out.
            rng: Shuffles the mentions, chooses the copies and draws the noise.

        Returns:
            The mean loss of each pass (paper eq. 4). Empty if no mention has an image.
        """
        examples = [demonstration for demonstration in model.store if demonstration.image != NO_IMAGE]
        if not examples:
            return []
        settings = settings.replace(n_demonstrations=0)
        deviation = standardise_by(model.mapper, features[0])
        names = model.language_model.tokenizer.encode([example.name for example in examples])
        targets = np.stack([model.language_model.embed(ids).float().mean(0).cpu().numpy() for ids in names])
        images = [example.image for example in examples]
        fit_to_embeddings(model.mapper, features[0][images], targets, model.language_model.embedding_size)

        rows = [cast(int, model.kb.row(example.kb_id)) for example in examples]
        steps = self.passes * math.ceil(len(examples) / self.batch_size)
        rates: Any = warmup_linear(self.rate, max(1, steps // 10), steps + 1)
        optimizer = Adam(rates, L2=0.0, grad_clip=1.0, use_averages=False)
        losses: list[float] = []
        for _ in (bar := trange(self.passes, desc="Aligning the mapper", unit="pass", leave=False)):
            order, total = rng.permutation(len(examples)).tolist(), 0.0
            for start in range(0, len(order), self.batch_size):
                batch = order[start : start + self.batch_size]
                mentions = []
                for index in batch:
                    row = features[int(rng.integers(len(features)))][images[index]]
                    noisy = row + self.noise * deviation * rng.standard_normal(row.shape, dtype=np.float32)
                    mentions.append(Mention(0, 0, 0, examples[index].mention, examples[index].text, noisy))
                total += float(model.learn(mentions, [rows[index] for index in batch], settings).sum())
                model.mapper.finish_update(optimizer)
                optimizer.step_schedules()
            losses.append(total / len(examples))
            bar.set_postfix(loss=f"{losses[-1]:.3f}")
        return losses
