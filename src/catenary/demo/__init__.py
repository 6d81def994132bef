"""The demo: a real agent over this project's own documents, without a model or a network."""
