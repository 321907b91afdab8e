"""Renders HTML pages as single files, from Jinja templates with a common stylesheet."""

from __future__ import annotations

import base64
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

__all__ = ["format_percent", "image_uri", "render_page"]


def render_page(package: str, template: str, **values: Any) -> str:
    """Renders a template in the folder of a package.

    All values are escaped, because the names of runs, classes and files may contain any character. A
    character that UTF-8 cannot encode becomes ``?``. The template can include the stylesheet
    ``page.css``, and can use the filter ``percent``, which is ``format_percent``. The template must
    embed images as ``data:`` URIs, because a page must not load other files.

    Args:
        package: the package's name, such as ``seedtf.evaluation``.
        template: the file name of the template.
        values: the variables of the template.

    Raises:
        jinja2.UndefinedError: the template uses a variable that is not given.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, "."), PackageLoader("seedtf.plots", ".")]),
        autoescape=True,
        undefined=StrictUndefined,
    )
    environment.filters["percent"] = format_percent
    text = environment.get_template(template).render(values)
    return text.encode("utf-8", "replace").decode("utf-8")


def format_percent(fraction: float | None) -> str:
    """``fraction`` as a percentage with one decimal and a no-break space; an en dash for None.

    Example:
        >>> format_percent(0.9653).replace("\\N{NO-BREAK SPACE}", " ")
        '96.5 %'
    """
    return "–" if fraction is None else f"{100 * fraction:.1f}\N{NO-BREAK SPACE}%"


def image_uri(data: bytes, kind: str = "png") -> str:
    """A ``data:`` URI with the bytes of an image file, for ``<img src=...>``."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
