"""Components of an HTML page that needs no other file: the images are inside the page.

The HTML is written in `templates/`. Jinja2 escapes every text that is not HTML already.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import cache
from typing import Any

import cv2
import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from uns_pose_ros.visualization.drawing import RgbImage

_JPEG_QUALITY = 85


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("uns_pose_ros.reporting", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )


def _render(macro: str, *arguments: object) -> Markup:
    """The HTML that a macro of `components.html.jinja` makes of its arguments."""
    components: Any = _environment().get_template("components.html.jinja").module
    return Markup(getattr(components, macro)(*arguments))


def page_document(title: str, note: str, sections: Sequence[tuple[str, Markup]]) -> str:
    """The whole page, with a line of links to its sections at the top.

    Args:
        title: the title of the page.
        note: a small line below the title.
        sections: heading and body of each section.
    """
    template = _environment().get_template("page.html.jinja")
    return template.render(title=title, note=note, sections=sections)


def paragraph(text: str, kind: str = "") -> Markup:
    """A paragraph. Its `kind` is "note" for an explanation and "bad" for a fault."""
    return _render("paragraph", text, kind)


def bullet_list(lines: Sequence[str], kind: str = "") -> Markup:
    """A list with one item for each line. Its `kind` is that of `paragraph`."""
    return _render("bullet_list", lines, kind)


def figure_grid(figures: Sequence[Markup], small: bool = False) -> Markup:
    """Figures side by side. A phone shows one in a row, or two if they are `small`."""
    return _render("figure_grid", figures, small)


def sortable_grid(figures: Sequence[tuple[Markup, str, float]]) -> Markup:
    """Small figures side by side, sorted by a number, the largest first, or by name.

    Args:
        figures: each with its name and its number.
    """
    ranked = sorted(figures, key=lambda one: (-one[2], one[1]))
    return _render("sortable_grid", ranked)


def data_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], marked: Sequence[bool] = ()
) -> Markup:
    """A table.

    Args:
        header: the heading of each column.
        rows: the cells of each row.
        marked: for each row, whether it is red; without it, no row is red.
    """
    marks = marked or [False] * len(rows)
    return _render("data_table", header, list(zip(rows, marks, strict=True)))


def image_figure(image: RgbImage, caption: str, width: int, bad: bool = False) -> Markup:
    """An image as JPEG with its caption.

    Args:
        image: (H, W, 3) uint8 RGB.
        caption: the text below the image.
        width: px, greatest width; a larger image is made smaller.
        bad: whether the caption is red.
    """
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    if image.shape[1] > width:
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        image = np.asarray(small, np.uint8)
    bgr = np.ascontiguousarray(image[..., ::-1])
    data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
    kind = "bad" if bad else ""
    return _render("figure", _data_url("jpeg", data), caption, image.shape[1], kind)


def plot_figure(figure: Figure, caption: str) -> Markup:
    """A matplotlib figure as PNG with its caption."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    width = round(figure.get_figwidth() * figure.dpi)
    return _render("figure", _data_url("png", buffer.getvalue()), caption, width, "")


def _data_url(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
