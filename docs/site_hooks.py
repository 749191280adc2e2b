"""MkDocs hooks: the Markdown files of the root are pages of the site, too.

They stay where hosting pages and readers of a clone look for them; links between them and
``docs/`` are written for a clone and change on the way into the site.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OF_ROOT = {
    "README.md": "index.md",
    **{f"{name}.md": f"{name}.md" for name in ("ARCHITECTURE", "CHANGELOG", "CONTRIBUTING",
                                               "SECURITY")},
}  # fmt: skip
"""Files of the root and the pages that they become."""

_TAG = re.compile(r"^(```[a-z]+) .*$", re.MULTILINE)
_LINK = re.compile(r"(\]\()([^)#:\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the root's files."""
    from mkdocs.structure.files import File

    for name, page in OF_ROOT.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(
    markdown: str,
    page: Page,
    config: MkDocsConfig,  # noqa: ARG001 - the hook's form
    files: Files,  # noqa: ARG001
) -> str:
    """Links as the site has them; what our tests note beside a block's language is for them."""
    markdown = _TAG.sub(r"\1", markdown)
    in_docs = page.file.src_uri not in OF_ROOT.values()
    return _LINK.sub(lambda match: match[1] + in_site(match[2], in_docs=in_docs), markdown)


def in_site(target: str, *, in_docs: bool) -> str:
    """Where a relative link of a file of ``docs/`` (or of the root) leads in the site."""
    if in_docs and not target.startswith("../"):
        return target
    plain = target.removeprefix("../")
    return OF_ROOT.get(plain, plain.removeprefix("docs/"))
