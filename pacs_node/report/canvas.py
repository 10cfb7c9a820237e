"""Where things stand on the overlay picture, and the colours of its dark ground."""

from __future__ import annotations

from typing import Final

from pacs_node.report import ecg_strip
from pacs_node.report.drawing import Box, Colour

MARGIN: Final = 24
WIDTH: Final = ecg_strip.WIDTH + 2 * MARGIN
HEADER_HEIGHT: Final = 76
FOOTER_HEIGHT: Final = 44
VIEW_WIDTH: Final = 900
VIEW_HEIGHT: Final = 900
VIEW: Final[Box] = (MARGIN, HEADER_HEIGHT + 12, MARGIN + VIEW_WIDTH, HEADER_HEIGHT + 12 + VIEW_HEIGHT)
PANEL: Final[Box] = (VIEW[2] + 32, VIEW[1], WIDTH - MARGIN, VIEW[3])
STRIP: Final[Box] = (MARGIN, VIEW[3] + 16, WIDTH - MARGIN, VIEW[3] + 16 + ecg_strip.HEIGHT)
HEIGHT: Final = STRIP[3] + FOOTER_HEIGHT
SCALE_BAR: Final[Box] = (PANEL[0], PANEL[3] - 62, PANEL[2], PANEL[3] - 36)

BACKGROUND: Final[Colour] = (14, 15, 18)
BLACK: Final[Colour] = (0, 0, 0)
WHITE: Final[Colour] = (245, 246, 248)
SOFT: Final[Colour] = (172, 178, 188)
LINE: Final[Colour] = (66, 71, 80)
TRACK: Final[Colour] = (40, 43, 50)
INTERVAL: Final[Colour] = (86, 156, 214)
AMBER: Final[Colour] = (255, 184, 28)
