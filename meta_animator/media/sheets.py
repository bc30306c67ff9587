"""Contact sheets: many pictures side by side, with small labels, as one picture."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PAPER = (250, 250, 248)
INK = (45, 45, 50)
EMPTY = (232, 232, 230)


def grid(
    rows: Sequence[Sequence[np.ndarray | None]],
    column_titles: Sequence[str] | None = None,
    row_titles: Sequence[str] | None = None,
    *,
    title: str = "",
    cell: int | None = None,
    gap: int = 6,
    font_size: int = 13,
) -> np.ndarray:
    """Lays uint8 (h, w, 3) RGB pictures out in rows; returns one uint8 (h, w, 3) RGB picture.

    Every cell has the size of the largest picture, or `cell` pixels as its longer side; smaller pictures are scaled
    to fit and centred. None leaves a cell empty. Titles stand above columns and before rows.
    """
    columns = max((len(row) for row in rows), default=0)
    pictures = [image for row in rows for image in row if image is not None]
    if not pictures:
        raise ValueError("a contact sheet needs at least one picture")
    height, width = _cell_size(pictures, cell)
    font = ImageFont.load_default(font_size)
    line = font_size + 8
    left = gap + (max(_text_width(font, text) for text in row_titles) + 10 if row_titles else 0)
    title_line = line + 6 if title else 0
    top = gap + title_line + (line if column_titles else 0)
    size = (left + columns * (width + gap), top + len(rows) * (height + gap))
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((gap, gap), title, INK, font=ImageFont.load_default(font_size + 3))
    for column, text in enumerate(column_titles or ()):
        middle = left + column * (width + gap) + width / 2
        draw.text((middle, gap + title_line + line / 2 - 2), _shorten(font, text, width), INK, font=font, anchor="mm")
    for r, row in enumerate(rows):
        y = top + r * (height + gap)
        if row_titles:
            draw.text((gap, y + height / 2), row_titles[r], INK, font=font, anchor="lm")
        for c, image in enumerate(row):
            _paste(sheet, image, left + c * (width + gap), y, height, width)
    return np.asarray(sheet)


def cells(sheet: np.ndarray, height: int, width: int, *, gap: int = 6, font_size: int = 13) -> list[list[np.ndarray]]:
    """The pictures, all of (height, width), of a sheet that `grid` has laid out with titles above columns and before rows.

    Columns are counted from the right, threes of them: titles of rows are taken to be narrower than three pictures.
    """
    top = gap + font_size + 8
    rows, columns = (sheet.shape[0] - top) // (height + gap), 3 * (sheet.shape[1] // (3 * (width + gap)))
    left = sheet.shape[1] - columns * (width + gap)
    corners = [[(top + r * (height + gap), left + c * (width + gap)) for c in range(columns)] for r in range(rows)]
    return [[sheet[y : y + height, x : x + width] for y, x in row] for row in corners]


def strip(
    frames: Sequence[np.ndarray], *, count: int = 8, cell: int | None = None, labels: Sequence[str] | None = None
) -> np.ndarray:
    """One row of at most `count` frames spread evenly over the clip, first and last included: uint8 (h, w, 3) RGB.

    `labels` has one text per frame of the clip; by default the frame number.
    """
    if len(frames) == 0:
        raise ValueError("a strip needs at least one frame")
    chosen = sorted({round(i) for i in np.linspace(0, len(frames) - 1, min(count, len(frames)))})
    texts = [labels[i] if labels else str(i) for i in chosen]
    return grid([[frames[i] for i in chosen]], texts, cell=cell)


def _cell_size(pictures: Sequence[np.ndarray], cell: int | None) -> tuple[int, int]:
    height = max(image.shape[0] for image in pictures)
    width = max(image.shape[1] for image in pictures)
    if cell is None:
        return height, width
    scale = cell / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _paste(sheet: Image.Image, image: np.ndarray | None, x: int, y: int, height: int, width: int) -> None:
    if image is None:
        sheet.paste(EMPTY, (x, y, x + width, y + height))
        return
    scale = min(height / image.shape[0], width / image.shape[1])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    picture = Image.fromarray(np.ascontiguousarray(image))
    if picture.size != size:
        how = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS
        picture = picture.resize(size, how)
    sheet.paste(picture, (x + (width - size[0]) // 2, y + (height - size[1]) // 2))


def _text_width(font: ImageFont.FreeTypeFont, text: str) -> int:
    return int(np.ceil(font.getlength(text)))


def _shorten(font: ImageFont.FreeTypeFont, text: str, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…" if text else ""
