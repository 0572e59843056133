"""The method in pure torch: heads, atoms and the energy between them (arXiv 2210.03728, Eqs. 5 to 12), and the loss made of it."""
