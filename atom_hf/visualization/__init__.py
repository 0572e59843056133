"""Token importance and atoms as one HTML page, PNGs or terminal text. Results come from `atom_hf.importance`."""

from .atoms_picture import write_atoms
from .page import Table, write_page
from .pictures import heat_map, write_sheet, write_words

__all__ = ["Table", "heat_map", "write_atoms", "write_page", "write_sheet", "write_words"]
