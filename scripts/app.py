"""An app to try a linker in: `streamlit run scripts/app.py -- [PIPELINE ...] [--data FILE ...]`.

Change the caption or the picture and see the answer change. It needs the extra [app] and no network.
"""

import argparse
import json
import re
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import spacy
import streamlit as st
from PIL import Image
from spacy.language import Language
from spacy.tokens import Doc

from spacy_gemel.pipeline import displacy

NO_LABEL = "ENT"
SHOWN = 6  # columns of features in the table of candidates; no docstring, which Streamlit would print


def arguments() -> argparse.Namespace:
    """The folders of pipelines and the JSON lines with examples and demonstrations, by default the project's own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("pipelines", nargs="*", type=Path)
    parser.add_argument("--data", nargs="*", type=Path)
    args = parser.parse_args(sys.argv[1:])
    args.pipelines = args.pipelines or sorted(
        (path.parent for path in Path("training").glob("**/model-best/meta.json")),
        key=lambda path: (len(path.parts), path),
    )
    if args.data is None:
        args.data = [path for name in ("dev", "train") for path in sorted(Path("data").glob(f"*/{name}.jsonl"))]
    return args


@st.cache_resource(show_spinner="Loading the pipeline ...")  # type: ignore[untyped-decorator]
def load(path: str) -> Language:
    """A pipeline, loaded once for all visitors. Raises ValueError if it has no linker."""
    nlp = spacy.load(path)
    if not linkers(nlp):
        raise ValueError("it has no gemel_linker")
    return nlp


def linkers(nlp: Language) -> list[str]:
    """The names of a pipeline's linkers."""
    return [name for name in nlp.pipe_names if nlp.get_pipe_meta(name).factory == "gemel_linker"]


@st.cache_data(show_spinner=False)  # type: ignore[untyped-decorator]
def read_rows(paths: list[str]) -> list[dict[str, Any]]:
    """The rows of JSON lines that have an image, with its path made whole."""
    rows = [
        (Path(path).parent, json.loads(line)) for path in paths for line in Path(path).read_text("utf8").splitlines()
    ]
    return [{**row, "image": str(folder / row["image"])} for folder, row in rows if row.get("image")]


def bracketed(row: dict[str, Any]) -> str:
    """A row's text with its mentions in brackets."""
    text: str = row["text"]
    for mention in sorted(row.get("mentions", ()), key=lambda each: -each["start"]):
        start, end = mention["start"], mention["end"]
        text = f"{text[:start]}[{text[start:end]}]{text[end:]}"
    return text


def make_doc(nlp: Language, caption: str, picture: bytes | None) -> Doc:
    """A linked doc: of the mentions in brackets, or if there are none, of those that the pipeline finds itself."""
    text, spans = "", []
    for part in re.split(r"(\[[^\[\]]+\])", caption):
        inner = part[1:-1] if part.startswith("[") and part.endswith("]") else None
        text += part if inner is None else inner
        if inner is not None:
            spans.append((len(text) - len(inner), len(text)))
    doc = nlp.make_doc(text)
    if picture is not None:
        doc.user_data["image"] = picture
    if not spans:
        return nlp(doc)
    for name, pipe in nlp.pipeline:
        if name in linkers(nlp):
            marked = (doc.char_span(*span, label=NO_LABEL, alignment_mode="expand") for span in spans)
            doc.ents = spacy.util.filter_spans([span for span in marked if span is not None])
        doc = pipe(doc)
    return doc


def show_candidates(linker: Any, explained: dict[str, Any]) -> None:
    """A table of the candidates, with descriptions and what spoke for each."""
    candidates = explained["candidates"]
    parted = any(each["parts"] for each in candidates)
    values = [each["parts"] or each["features"] for each in candidates]
    names = {name: max(abs(each.get(name, 0.0)) for each in values) for each in values for name in each}
    columns = sorted(names, key=lambda name: -names[name])[:SHOWN]
    rows = []
    for each in candidates:
        row = linker.kb.row(each["kb_id"])
        entity = None if row is None else linker.kb.entity(row)
        spoke = {name: each["parts" if parted else "features"].get(name, 0.0) for name in columns}
        rows.append(
            {
                "name": each["name"],
                "probability": None if each["probability"] is None else round(each["probability"], 3),
                "description": (entity.description if entity else None) or "",
                **{name: round(value, 2) for name, value in spoke.items()},
                "id": each["kb_id"],
            }
        )
    st.dataframe(rows, hide_index=True)
    if parted:
        st.caption(
            f"The further columns are what spoke most for or against each candidate (at most {SHOWN} are listed)."
        )


def show_demonstrations(demonstrations: list[dict[str, Any]], pictures: dict[str, str]) -> None:
    """The demonstrations in the prompt, the most similar first, with their pictures if the data has them."""
    st.markdown("**Demonstrations in the prompt**, the most similar first")
    for column, each in zip(st.columns(4) * len(demonstrations), reversed(demonstrations), strict=False):
        with column, st.container(border=True):
            path = pictures.get(each["text"])
            if path and Path(path).is_file():
                st.image(path)
            st.text(f"{each['text']}\n{each['mention']} → {each['name']}")


def show(nlp: Language, doc: Doc, pictures: dict[str, str]) -> None:
    """The linked text, and for each mention its answer and why."""
    linker: Any = nlp.get_pipe(linkers(nlp)[-1])
    st.html(displacy.render(doc, jupyter=False) or "")
    for ent in doc.ents:
        if ent.label_ in linker.settings.labels_discard:
            continue
        explained = linker.explain(ent)
        answer = explained["answer"]
        st.subheader(ent.text, anchor=False)
        if answer == "NIL":
            st.warning(f"{ent.text} is not linked (NIL): no entity of the knowledge base is likely enough.")
        else:
            st.success(f"{ent.text} → {answer}")
        without = explained["answer_without_image"]
        if without is not None:
            st.text("Without the picture: " + ("the same answer" if without == answer else without))
        if explained["candidates"]:
            show_candidates(linker, explained)
        if explained["demonstrations"]:
            show_demonstrations(explained["demonstrations"], pictures)


def picture_bytes(example: dict[str, Any] | None) -> bytes | None:
    """The picture to link with: an upload, or else the example's. Stops with a message if it cannot be read."""
    upload = st.file_uploader("Another picture", type=["png", "jpg", "jpeg", "webp", "gif", "bmp"])
    if upload is None and example is None:
        return None
    try:
        data = upload.getvalue() if upload is not None else Path(example["image"]).read_bytes() if example else b""
        with Image.open(BytesIO(data)) as image:
            image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        name = upload.name if upload is not None else example["image"] if example else ""
        st.error(f"{name} cannot be read as a picture. Choose another PNG, JPEG or WebP file. ({type(error).__name__})")
        st.stop()
    return data


def main() -> None:
    """Draw the page."""
    st.set_page_config("spacy-gemel", layout="wide")
    st.title("Entities from text and picture", anchor=False)
    args = arguments()
    if not args.pipelines:
        st.error(
            "There is no pipeline in training/. Train one, or name its folder: streamlit run scripts/app.py -- FOLDER"
        )
        st.stop()
    path = st.selectbox("Pipeline", [str(each) for each in args.pipelines])
    try:
        nlp = load(path)
    except Exception as error:  # whatever a damaged folder raises
        st.error(f"{path} cannot be loaded: {error}")
        st.stop()
    rows = read_rows([str(each) for each in args.data])
    linker: Any = nlp.get_pipe(linkers(nlp)[-1])
    known = [row for row in rows if any(each.get("kb_id") in linker.kb for each in row.get("mentions", ()))][:50]
    left, right = st.columns([2, 1])
    with right:
        index = st.selectbox("Picture of", range(len(known)), format_func=lambda i: known[i]["text"]) if known else None
        example = None if index is None else known[index]
        picture = picture_bytes(example)
        if st.checkbox("Without a picture"):
            picture = None
        elif picture is not None:
            st.image(picture, width=240)
    with left:
        caption = st.text_area(
            "Caption",
            bracketed(known[0]) if known else "",
            help="Put the names to link in [brackets]. Without brackets, the pipeline's own NER finds them.",
        )
        st.caption("Put the names to link in [brackets]. Without brackets, the pipeline's own NER finds them.")
        if not caption.strip():
            st.info("Write a caption.")
            st.stop()
        doc = make_doc(nlp, caption, picture)
        if not doc.ents:
            st.info("No entity was found in the caption. Put the names to link in [brackets], such as: [Mercury] rises")
            st.stop()
        show(nlp, doc, {row["text"]: row["image"] for row in rows})


main()
