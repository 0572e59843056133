"""The method in pure torch: heads, atoms, the energy between them (arXiv 2210.03728), and the loss made of it."""
