"""The pieces of an HTML page that needs no other file.

Text, tables, pictures and plots, each as HTML with its data inside.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from uns_pose_ros.visualization.drawing import Picture

_QUALITY = 85  # of JPEG pictures
_STYLE = """
:root { color-scheme: light; } * { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto;
  max-width: 76rem; padding: 1.5rem 1rem 4rem; color: #222; }
h1, h2, h3 { font-weight: 600; line-height: 1.25; } h1 { margin: 0 0 .25rem; }
h2 { margin: 2.5rem 0 .5rem; padding-top: .75rem; border-top: 1px solid #ddd; }
h3 { margin: 1.5rem 0 .5rem; font-size: 1rem; }
p { margin: .5rem 0; max-width: 48rem; overflow-wrap: break-word; } .note { color: #666; }
.bad { color: #b00; }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: .75rem 0; }
a { color: #06c; text-decoration: none; }
.wide { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: .25rem .7rem; text-align: right;
  border-bottom: 1px solid #ddd; white-space: nowrap; }
td:first-child, th:first-child { text-align: left; padding-left: 0; } tr.out td { color: #b00; }
ul.bad { padding-left: 1.25rem; } li { overflow-wrap: anywhere; }
.grid { display: flex; flex-wrap: wrap; gap: 1rem; margin: .75rem 0; align-items: flex-start; }
figure { margin: 0; max-width: 100%; }
img { display: block; max-width: 100%; height: auto; border-radius: 3px; }
figcaption { font-size: 13px; margin-top: .25rem; overflow-wrap: anywhere; color: #444; }
figcaption.bad { color: #b00; }
@media (max-width: 32rem) { body { padding: 1rem .75rem 3rem; }
td, th { padding: .25rem .45rem; font-size: 13px; }
  .grid > figure { width: 100%; max-width: none !important; } .grid > figure img { width: 100%; }
  .grid { gap: .75rem; } .grid.small > figure { width: calc(50% - .375rem); } }
"""


def document(title: str, note: str, sections: Sequence[tuple[str, str]]) -> str:
    """The whole page of its sections: heading and body; a line of links goes before them."""
    links = "".join(
        f"<a href='#s{k}'>{html.escape(heading)}</a>"
        for k, (heading, _) in enumerate(sections)
    )
    body = "".join(
        f"<section><h2 id='s{k}'>{html.escape(heading)}</h2>{text}</section>"
        for k, (heading, text) in enumerate(sections)
    )
    head = (
        "<meta charset='utf-8'><meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>"
    )
    top = f"<h1>{html.escape(title)}</h1><p class='note'>{html.escape(note)}</p><nav>{links}</nav>"
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{top}{body}</body></html>\n"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph; `kind`: "note" for what explains, "bad" for what went wrong."""
    return f"<p{_kind(kind)}>{html.escape(text)}</p>"


def bullets(lines: Sequence[str], kind: str = "") -> str:
    return (
        f"<ul{_kind(kind)}>"
        + "".join(f"<li>{html.escape(line)}</li>" for line in lines)
        + "</ul>"
    )


def grid(figures: Sequence[str], small: bool = False) -> str:
    """Figures side by side, as many as fit; on a phone one a row, two where they are `small`."""
    return f"<div class='grid{' small' if small else ''}'>{''.join(figures)}</div>"


def html_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], marked: Sequence[bool] = ()
) -> str:
    """A table; `marked` rows are red."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    lines = []
    for k, row in enumerate(rows):
        mark = " class='out'" if k < len(marked) and marked[k] else ""
        lines.append(
            f"<tr{mark}>"
            + "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
            + "</tr>"
        )
    return f"<div class='wide'><table><tr>{head}</tr>{''.join(lines)}</table></div>"


def picture(image: Picture, caption: str, width: int, bad: bool = False) -> str:
    """An image (H, W, 3) at most `width` px wide."""
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    if image.shape[1] > width:
        image = np.asarray(
            cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8
        )
    data = cv2.imencode(
        ".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    )[1].tobytes()
    return _figure("jpeg", data, caption, image.shape[1], bad)


def plot(figure: Figure, caption: str) -> str:
    """A matplotlib figure."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return _figure(
        "png", buffer.getvalue(), caption, round(figure.get_figwidth() * figure.dpi)
    )


def _figure(kind: str, data: bytes, caption: str, width: int, bad: bool = False) -> str:
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return (
        f"<figure style='max-width:{width}px'><img src='{source}' "
        f"alt='{html.escape(caption, quote=True)}' width='{width}'>"
        f"<figcaption{_kind('bad' if bad else '')}>{html.escape(caption)}</figcaption></figure>"
    )


def _kind(kind: str) -> str:
    return f" class='{kind}'" if kind else ""
