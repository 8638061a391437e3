"""Typed schema, composition, names, weights, paths and errors; imports no torch."""
