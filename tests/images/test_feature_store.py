"""Features on disk: found by content, whole or not at all, and never another encoder's."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from spacy_gemel.images import feature_store
from spacy_gemel.images.feature_store import (
    EncoderFingerprint,
    FeatureStore,
    FeatureStoreError,
    FeatureWriter,
    content_key,
)
from spacy_gemel.models.open_clip import load_open_clip
from spacy_gemel.models.vision_encoder import VisionEncoder
from spacy_gemel.registry import open_clip_encoder
from tests.sending import Sent

WIDTH = 3
ENCODER = EncoderFingerprint("some", {"pretrained": "tag"}, WIDTH, "abc", [1.0, 2.0, -3.0], 1e-3)


def key(number: int) -> bytes:
    return content_key(str(number).encode()) or b""


def row(number: int) -> np.ndarray:
    return np.full(WIDTH, number, dtype=np.float32)


def write(folder: Path, numbers: Any, encoder: EncoderFingerprint = ENCODER) -> None:
    with FeatureWriter(folder, encoder) as writer:
        for number in numbers:
            if key(number) not in writer:
                writer.add(key(number), row(number))


@settings(max_examples=40)
@given(st.lists(st.lists(st.integers(0, 60), max_size=20), max_size=5), st.integers(1, 7))
def test_what_runs_add_is_found(tmp_path_factory: Any, runs: list[list[int]], shard_rows: int) -> None:
    folder = tmp_path_factory.mktemp("features")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_store, "_SHARD_ROWS", shard_rows)
        for numbers in [[], *runs]:
            write(folder, numbers)
    store = FeatureStore(folder, verify=True)
    added = {number for numbers in runs for number in numbers}
    assert len(store) == len(added)
    for number in range(61):
        found = store.find(key(number))
        assert (found is not None) == (number in added)
        assert found is None or (found == row(number)).all()


def test_keys_that_share_a_half_are_told_apart(tmp_path: Path) -> None:
    keys = [bytes([1] * 8 + [n] * 8) for n in range(5)] + [bytes([n] * 8 + [1] * 8) for n in range(5)]
    with FeatureWriter(tmp_path, ENCODER) as writer:
        for number, one in enumerate(keys):
            writer.add(one, row(number))
    store = FeatureStore(tmp_path)
    for number, one in enumerate(keys[:6] + keys[7:]):
        assert store.find(one) is not None, number
    assert store.find(bytes([1] * 8 + [9] * 8)) is None


def test_the_same_bytes_have_the_same_key(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"xyz")
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert content_key(str(tmp_path / "a")) == content_key(tmp_path / "a") == content_key(b"xyz")
    assert content_key(pixels) == content_key(pixels.copy()) != content_key(pixels.reshape(4, 2, 3))
    assert content_key(pixels[:, ::-1]) == content_key(np.ascontiguousarray(pixels[:, ::-1]))
    for nothing in (None, 3, str(tmp_path / "none"), "a\0b", np.zeros(3), Image.new("RGB", (2, 2))):
        assert content_key(nothing) is None


def test_an_interrupt_keeps_what_was_added(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), FeatureWriter(tmp_path, ENCODER) as writer:
        writer.add(key(1), row(1))
        raise KeyboardInterrupt
    # a process that was killed leaves a shard that meta.json does not name, or half a file
    (tmp_path / "00001.keys.npy").write_bytes(b"half")
    (tmp_path / ".00001.rows.npy.abc").write_bytes(b"half")
    assert len(FeatureStore(tmp_path)) == 1
    write(tmp_path, [1, 2])
    assert len(FeatureStore(tmp_path, verify=True)) == 2


def test_another_encoders_features_are_refused(tmp_path: Path) -> None:
    write(tmp_path, [1])
    others = {
        "another width": replace(ENCODER, width=4, probe=[0.0] * 4),
        "other weights": replace(ENCODER, weights="def", name="other"),
        "other pixels": replace(ENCODER, probe=[1.0, 2.0, -2.9]),
    }
    for why, other in others.items():
        with pytest.raises(FeatureStoreError, match=rf"another vision encoder, 'some' \(pretrained 'tag', .*{why}"):
            FeatureStore(tmp_path).check_encoder(other)
        with pytest.raises(FeatureStoreError, match=why):
            FeatureWriter(tmp_path, other)
    # the same model under another name, on a machine that rounds otherwise
    FeatureStore(tmp_path).check_encoder(replace(ENCODER, name="bundle", probe=[1.0, 2.0, -3.001]))


@pytest.mark.parametrize("what", ["cut", "longer", "keys", "gone", "meta", "meta cut", "version", "other"])
def test_damage_is_one_clear_error(what: str, tmp_path: Path) -> None:
    write(tmp_path, range(5))
    rows, keys, meta = tmp_path / "00000.rows.npy", tmp_path / "00000.keys.npy", tmp_path / "meta.json"
    content = json.loads(meta.read_text())
    if what == "cut":
        rows.write_bytes(rows.read_bytes()[:-1])
    elif what == "longer":
        rows.write_bytes(rows.read_bytes() + b"x")
    elif what == "keys":
        keys.write_bytes(keys.read_bytes()[:-1] + b"\0")
    elif what == "gone":
        rows.unlink()
    elif what == "meta":
        content["shards"][0]["rows"] = 4
        meta.write_text(json.dumps(content))
    elif what == "meta cut":
        meta.write_text(meta.read_text()[:50])
    elif what == "version":
        meta.write_text(json.dumps({**content, "version": 99}))
    else:
        meta.write_text("[]")
    with pytest.raises(FeatureStoreError, match="encode-images"):
        FeatureStore(tmp_path)


def test_a_flipped_bit_is_found_by_verify(tmp_path: Path) -> None:
    write(tmp_path, range(5))
    rows = tmp_path / "00000.rows.npy"
    content = bytearray(rows.read_bytes())
    content[-3] ^= 1
    rows.write_bytes(content)
    assert len(FeatureStore(tmp_path)) == 5
    with pytest.raises(FeatureStoreError, match="checksum"):
        FeatureStore(tmp_path, verify=True)


def test_no_pickle_is_read(tmp_path: Path) -> None:
    write(tmp_path, range(2))
    np.save(tmp_path / "evil.npy", np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    content = json.loads((tmp_path / "meta.json").read_text())
    evil = (tmp_path / "evil.npy").read_bytes()
    (tmp_path / "00000.rows.npy").write_bytes(evil)
    content["shards"][0]["rows_bytes"] = len(evil)
    del content["checksum"]
    content["checksum"] = feature_store._checksum(content)
    (tmp_path / "meta.json").write_text(json.dumps(content))
    with pytest.raises(FeatureStoreError, match="cannot be read"):
        FeatureStore(tmp_path)


def test_another_process_gets_the_path(tmp_path: Path) -> None:
    write(tmp_path, range(2))
    store = FeatureStore(tmp_path)
    assert store.__reduce__()[1] == (tmp_path,)
    assert len(Sent(store).receive()) == 2


# With a real encoder


def test_identity_tells_encoders_apart(models: Path, tmp_path: Path) -> None:
    name = str(models / "vision_encoder")
    frozen = open_clip_encoder(name)
    encoder = frozen.load("cpu")
    mine = EncoderFingerprint.of(encoder, name, frozen.settings)
    again = load_open_clip(name, None, projection=False, device="cpu", dtype=None)
    assert mine.difference(EncoderFingerprint.of(again, "elsewhere")) is None
    assert EncoderFingerprint.of(encoder, name, frozen.settings) == mine
    assert json.loads(json.dumps(mine.probe)) == mine.probe
    joint = load_open_clip(name, None, projection=True, device="cpu", dtype=None)
    assert mine.difference(EncoderFingerprint.of(joint, name)) == "another width"
    half = load_open_clip(name, None, projection=False, device="cpu", dtype="bfloat16")
    assert mine.difference(EncoderFingerprint.of(half, name)) == "other weights"
    mirrored = VisionEncoder(again.model, lambda image: again.preprocess(image).flip(-1), again.forward)
    assert mine.difference(EncoderFingerprint.of(mirrored, name)) == "other pixels made of the same image"
    again.model.conv1.weight.data[0, 0, 0, 0] += 1e-3
    again = VisionEncoder(again.model, again.preprocess, again.forward)
    assert mine.difference(EncoderFingerprint.of(again, name)) == "other weights"
