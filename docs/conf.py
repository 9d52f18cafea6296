"""How Sphinx builds the manual: Markdown pages, and the API from docstrings. Nothing is loaded from the network."""

import os
import re

os.environ.setdefault("KERAS_BACKEND", "torch")  # the API pages import the package

import semseg

project = "semseg"
author = "the semseg authors"
release = semseg.__version__
html_title = f"semseg {release}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["requirements.txt"]
myst_heading_anchors = 3
copybutton_exclude = ".linenos, .gp"

default_role = "code"  # docstrings write names in single backquotes, as Markdown has them
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # attributes as one list
napoleon_preprocess_types = False
add_module_names = False
python_maximum_signature_line_length = 88

html_theme = "furo"
html_theme_options = {"navigation_with_keys": True}
html_static_path = ["_static"]
html_css_files = ["manual.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False


def _escape_bars(app, what, name, obj, options, lines):
    """A bar in a docstring is a bar, as in `|a - b|`, and no reference of reStructuredText."""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            lines[i] = re.sub(r"(`[^`]*`)|\|", lambda found: found[1] or r"\|", line)


def setup(app):
    """Sphinx calls this first; the bars are escaped before napoleon writes markup of its own."""
    app.connect("autodoc-process-docstring", _escape_bars, priority=400)
