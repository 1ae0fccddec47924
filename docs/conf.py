"""The documentation site: `make docs` builds it into docs/_build/html, without a network and with every warning an error."""

import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

project = "interp"
version = release = tomllib.loads(
    (HERE.parent / "pyproject.toml").read_text(encoding="utf-8")
)["project"]["version"]
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "api",
    "gallery",
    "math_ml",
    "notebooks",
    "own_pages",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]

# Markdown: $formulas$, fenced directives with colons, links to headings.
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
myst_links_external_new_tab = False
nb_execution_mode = "off"  # notebooks show the outputs that are stored in them; a test of their own runs them

# Python: docstrings are the project's own plain form (see _ext/api.py); types stand in the signatures.
autodoc_typehints = "none"
autodoc_inherit_docstrings = False  # torch says nothing of use about `forward`
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
python_maximum_signature_line_length = 90
python_display_short_literal_types = True
toc_object_entries_show_parents = "hide"
nitpicky = True
nitpick_ignore_regex = [
    (r"py:(class|data|obj)", r".*")
]  # types in signatures name things of other libraries

html_theme = "furo"
html_title = "interp"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_search_summary = (
    False  # it would be fetched, which a page opened from disk may not
)
pygments_dark_style = "github-dark"
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {"top_of_page_buttons": []}
