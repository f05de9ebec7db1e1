"""Sphinx: `make docs`. Sources begin at the checkout, so pages may link to results and to files of the code."""

from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]

import from_code  # noqa: E402

from sparserl import __version__  # noqa: E402

project = "sparserl"
author = "The sparserl developers"
copyright = author
version = release = __version__

root_doc = "docs/index"
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**.md", "results/*/README.md"]
_FOLDERS = {"docs", "results"}
exclude_patterns = [
    *(path.name for path in DOCS.parent.iterdir() if path.is_dir() and path.name not in _FOLDERS),
    "docs/generated",
]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
default_role = "code"  # docstrings write code as Markdown does
autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_custom_sections = ["Source"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

highlight_language = "text"  # of blocks that name none
html_theme = "furo"
html_title = f"sparserl {version}"
templates_path = ["templates"]
html_static_path, html_css_files = ["static"], ["wide.css"]
html_additional_pages = {"index": "index.html"}
html_copy_source = False

from_code.write(DOCS / "generated")
