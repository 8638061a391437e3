"""Pages that people open in a browser: one look, one file each, offline, and every text is data."""

from alignlab.pages.index import index_link as index_link
from alignlab.pages.parts import Cell as Cell
from alignlab.pages.parts import Column as Column
from alignlab.pages.parts import Folded as Folded
from alignlab.pages.parts import Section as Section
from alignlab.pages.parts import Table as Table
from alignlab.pages.parts import facts as facts
from alignlab.pages.shell import Link as Link
from alignlab.pages.shell import packed as packed
from alignlab.pages.shell import write_page as write_page
from alignlab.pages.shell import write_report as write_report
from alignlab.pages.text import prompt_text as prompt_text
from alignlab.pages.text import visible as visible
