"""Frozen models by name are shared within a process."""

from pathlib import Path
from typing import Any

from spacy_gemel.models.frozen import FrozenModel
from spacy_gemel.models.vision_encoder import VisionEncoder
from spacy_gemel.registry import open_clip_encoder


def test_one_model_for_all_pipes_of_a_process(models: Path) -> None:
    first: FrozenModel[VisionEncoder] = open_clip_encoder(str(models / "vision_encoder"))
    second: FrozenModel[VisionEncoder] = open_clip_encoder(str(models / "vision_encoder"))
    assert first.load("cpu") is second.load("cpu")
    other = open_clip_encoder(str(models / "vision_encoder"), projection=True)
    assert other.load("cpu") is not first.load("cpu")


def test_a_bundle_is_known_by_every_setting_that_chooses_the_files(tmp_path: Path) -> None:
    """Also by one that a new encoder brings; a bundle that is older than the setting stays valid."""

    def frozen(**settings: object) -> FrozenModel[Any]:
        return FrozenModel("vision encoder", "nowhere:load", "nowhere:bundle", "name", None, tuple(settings.items()))

    marker = tmp_path / "bundle.json"
    marker.write_text('{"name": "name", "revision": "a", "variant": "small"}')
    assert frozen(revision="a", variant="small", dtype="bfloat16").is_bundled(tmp_path)
    assert not frozen(revision="a", variant="large").is_bundled(tmp_path)
    assert not frozen(revision="b", variant="small").is_bundled(tmp_path)
    marker.write_text('{"name": "name", "revision": null}')
    assert frozen(revision=None, variant="small").is_bundled(tmp_path)
    assert not frozen(variant="small").is_bundled(tmp_path)  # another kind of model, which has no revision
