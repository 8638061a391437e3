"""Pages that people open in a browser: one look, one file each, offline, and every text is data."""

from alignlab.pages.parts import Column as Column
from alignlab.pages.parts import Table as Table
from alignlab.pages.parts import facts as facts
from alignlab.pages.shell import Link as Link
from alignlab.pages.shell import packed as packed
from alignlab.pages.shell import write_page as write_page
from alignlab.pages.text import visible as visible
