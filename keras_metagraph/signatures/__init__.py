"""Signatures: endpoints of a model, as servers call them."""
