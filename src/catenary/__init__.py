"""Catenary."""
