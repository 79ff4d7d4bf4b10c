"""Graphs: nodes, functions, and what passes make of them."""
