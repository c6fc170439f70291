"""The features on disk that a pipe's setting `image_features` names."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from spacy_gemel.images.feature_store import FeatureStore, FeatureStoreError
from spacy_gemel.images.identity import identify
from spacy_gemel.utils.files import resolve

if TYPE_CHECKING:
    from spacy_gemel.models.frozen import FrozenModel
    from spacy_gemel.models.vision_encoder import VisionEncoder


def open_features(
    name: str | None,
    frozen: "FrozenModel[VisionEncoder]",
    encoder: "VisionEncoder",
    *,
    last: Path | None = None,
    strict: bool,
) -> FeatureStore | None:
    """The features in a folder, checked to be this encoder's; None where no folder is named.

    name: as the config has it; see paths.resolve. last: where it lay when the pipe was saved.
    strict: read all of it against its checksums, and raise FeatureStoreError where the features cannot be used; else
        warn, and give None, since they only save time.
    """
    if name is None:
        return None
    folder = last if last is not None and last.is_dir() else resolve(name)
    try:
        store = FeatureStore(folder, verify=strict)
        store.check_encoder(identify(encoder, frozen.name, frozen.settings))
    except FeatureStoreError as error:
        if strict:
            raise FeatureStoreError(f"gemel_linker: image_features: {error}, or set image_features = null.") from error
        warnings.warn(f"gemel_linker: image_features are not used, images are encoded: {error}.", stacklevel=2)
        return None
    return store
