"""Dependencies and entry points; all else of the package is in pyproject.toml.

Every registered function is an entry point, so that no `--code` is ever needed.
"""

from setuptools import find_packages, setup

ENTRY_POINTS = {
    "spacy_factories": ["gemel_linker = spacy_gemel.pipeline.gemel_linker:make_gemel_linker"],
    "spacy_architectures": ["spacy_gemel.LinearMapper.v1 = spacy_gemel.models.mapper:linear_mapper"],
    "spacy_misc": [
        "spacy_gemel.CausalLM.v1 = spacy_gemel.registry:causal_lm",
        "spacy_gemel.OpenCLIP.v1 = spacy_gemel.registry:open_clip_encoder",
        "spacy_gemel.HuggingFaceVision.v1 = spacy_gemel.registry:hugging_face_vision",
        "spacy_gemel.NoRetriever.v1 = spacy_gemel.registry:no_retriever",
        "spacy_gemel.RandomRetriever.v1 = spacy_gemel.registry:random_retriever",
        "spacy_gemel.BM25Retriever.v1 = spacy_gemel.registry:bm25_retriever",
        "spacy_gemel.SentenceTransformerRetriever.v1 = spacy_gemel.registry:sentence_transformer_retriever",
        "spacy_gemel.TransformerRetriever.v1 = spacy_gemel.registry:transformer_retriever",
        "spacy_gemel.Alignment.v1 = spacy_gemel.registry:alignment",
        "spacy_gemel.ScoreFeature.v1 = spacy_gemel.registry:score_feature",
        "spacy_gemel.NameProbabilityFeature.v1 = spacy_gemel.registry:name_probability_feature",
        "spacy_gemel.DemonstratedFeature.v1 = spacy_gemel.registry:demonstrated_feature",
        "spacy_gemel.PriorFeature.v1 = spacy_gemel.registry:prior_feature",
        "spacy_gemel.SurfaceFeature.v1 = spacy_gemel.registry:surface_feature",
        "spacy_gemel.NameShareFeature.v1 = spacy_gemel.registry:name_share_feature",
        "spacy_gemel.LengthFeature.v1 = spacy_gemel.registry:length_feature",
        "spacy_gemel.DescriptionFeature.v1 = spacy_gemel.registry:description_feature",
        "spacy_gemel.ImageDescriptionFeature.v1 = spacy_gemel.registry:image_description_feature",
        "spacy_gemel.PictureFeature.v1 = spacy_gemel.registry:picture_feature",
        "spacy_gemel.AgreementFeature.v1 = spacy_gemel.registry:agreement_feature",
        "spacy_gemel.KBFromDisk.v1 = spacy_gemel.registry:kb_from_disk",
        "spacy_gemel.KBFromHub.v1 = spacy_gemel.registry:kb_from_hub",
        "spacy_gemel.KBFromLookupKB.v1 = spacy_gemel.registry:kb_from_lookup_kb",
    ],
    "spacy_readers": ["spacy_gemel.MultimodalCorpus.v1 = spacy_gemel.data.reader:multimodal_corpus"],
    "spacy_scorers": ["spacy_gemel.linker_scorer.v1 = spacy_gemel.pipeline.scorer:make_linker_scorer"],
    "spacy_cli": ["gemel = spacy_gemel.spacy_cli:app"],
    "console_scripts": ["spacy-gemel = spacy_gemel.__main__:main"],
}

# CausalLM's GGUF files, whose tokenizers earlier versions of transformers get wrong
GGUF = ["gguf>=0.17,<1.0", "accelerate>=1.10,<2.0", "transformers>=5.24,<6.0"]

setup(
    packages=find_packages(include=["spacy_gemel", "spacy_gemel.*"]),
    package_data={"spacy_gemel": ["py.typed", "evaluation/*.html", "evaluation/*.js"]},
    install_requires=[
        "spacy>=3.8,<4.0",
        "srsly>=2.4.5,<3.0",
        "numpy>=1.26",
        "torch>=2.5",  # transformers makes no masks of sliding windows with 2.4
        "torchvision>=0.20",  # named beside torch so that both come from the same index
        "transformers>=4.53,<6.0",
        "open_clip_torch>=3.0,<4.0",
        "sentence-transformers>=5.0,<7.0",
        "rank_bm25>=0.2.2,<0.3",
        "pyarrow>=17.0",
        "pillow>=10.1",
        "requests>=2.32.2,<3.0",  # has get_connection_with_tls_context; spaCy needs it as well
        "urllib3>=2.6,<3.0",  # decompresses no more of a body at once than is read: fetch-images relies on it
        "scipy>=1.11",
        "safetensors>=0.4.3",
        "huggingface_hub>=0.34,<3.0",  # has the command hf; transformers 4.53 needs it below 1.0
        "filelock>=3.30.3,<5.0",  # has lock_descriptor; from 3.20.4 to July 2026 releases removed the lock file
        "tqdm>=4.60",
        "jinja2>=3.0",
        "typer>=0.16",
    ],
    extras_require={
        # spacy-transformers pins transformers below 4.53.3: nothing here imports it at start.
        "spacy-transformers": ["spacy-transformers>=1.4,<2.0"],
        # 0.3 is for spaCy 3, 1.0 and later for spaCy 4.
        "curated-transformers": ["spacy-curated-transformers>=0.3.1,<1.0"],
        # CausalLM's quantization; bitsandbytes runs on CPUs since 0.46
        "quantized": ["bitsandbytes>=0.46.1", "accelerate>=1.1"],
        "gguf": GGUF,
        "ray": ["ray>=2.40"],  # link --engine ray
        "app": ["streamlit>=1.40,<2.0"],  # `spacy project run visualize`: scripts/app.py
        "hdf5": ["h5py>=3.8,<4.0"],  # convert gemel --features
        "real": [*GGUF, "resvg-py>=0.3"],  # `spacy project run real`: scripts/real_models.py, scripts/drawings
        # the site (mkdocs.yml) and its notebook
        "docs": [
            "mkdocs>=1.6,<2.0",
            "mkdocs-material>=9.6,<10.0",
            "mkdocstrings-python>=1.16",
            "nbclient>=0.10",
            "ipykernel>=6.29",
        ],
        "dev": [
            "pytest>=8.0",
            "pytest-xdist>=3.5",
            "hypothesis>=6.100",
            "ruff>=0.9",
            "mypy>=1.14",
            "import-linter>=2.1",
            "gguf>=0.17,<1.0",  # [gguf], but for transformers: .ci/matrix tests its oldest version
            "accelerate>=1.10,<2.0",
            "h5py>=3.8,<4.0",
            "pandas>=2.0",  # the example of link_table
            "resvg-py>=0.3",
            "playwright>=1.45,<2.0",  # drives Chromium, where there is one, through the report
            "build>=1.2",  # which spacy package wants
            "setuptools>=77.0.3",  # as pyproject.toml wants for a build without isolation
        ],
    },
    entry_points=ENTRY_POINTS,
)
