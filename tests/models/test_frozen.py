"""Frozen models by name are shared within a process."""

from pathlib import Path

from spacy_gemel.models.frozen import FrozenModel
from spacy_gemel.models.vision_encoder import VisionEncoder
from spacy_gemel.registry import open_clip_encoder


def test_one_model_for_all_pipes_of_a_process(models: Path) -> None:
    first: FrozenModel[VisionEncoder] = open_clip_encoder(str(models / "vision_encoder"))
    second: FrozenModel[VisionEncoder] = open_clip_encoder(str(models / "vision_encoder"))
    assert first.load("cpu") is second.load("cpu")
    other = open_clip_encoder(str(models / "vision_encoder"), projection=True)
    assert other.load("cpu") is not first.load("cpu")
