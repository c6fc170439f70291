"""What MkDocs calls while it builds the site: the pages that lie beside docs/ are pages of the site too."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.utils import get_relative_url

ROOT = Path(__file__).parent.parent
ROOT_PAGES = ("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
ROOT_IMAGES = ("assets/contact_sheet.jpg",)


def on_files(files: Files, config: Any) -> Files:
    """Add the files of the clone's root that the site shows."""
    for name in (*ROOT_PAGES, *ROOT_IMAGES):
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, **_options: Any) -> str:
    """Let links between docs/ and the root lead within the site; a link to what is in the clone alone is its name."""
    if page.file.src_uri in ROOT_PAGES:
        markdown = markdown.replace("](docs/", "](")
    markdown = re.sub(rf"\]\(\.\./({'|'.join(map(re.escape, (*ROOT_PAGES, *ROOT_IMAGES)))})", r"](\1", markdown)
    return re.sub(r"\[([^\]]*)\]\((?:\.\./)?(?:README\.md|[\w/]+/README\.md)(?:#[\w-]*)?\)", r"\1", markdown)


def on_post_page(output: str, page: Any, **_options: Any) -> str:
    """Search without a worker by our own script; the theme would load one from the network."""
    return output.replace("https://unpkg.com/iframe-worker/shim", get_relative_url("javascripts/worker.js", page.url))


def on_post_template(output_content: str, **_options: Any) -> str:
    """The same in 404.html, which lies at the top."""
    return output_content.replace("https://unpkg.com/iframe-worker/shim", "javascripts/worker.js")
