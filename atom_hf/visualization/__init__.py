"""What the heads found, to look at: one page of HTML, or PNGs. Readings come from `atom_hf.importance`."""

from .atoms_picture import write_atoms
from .page import Table, write_page
from .pictures import heat_map, write_sheet, write_words

__all__ = ["Table", "heat_map", "write_atoms", "write_page", "write_sheet", "write_words"]
