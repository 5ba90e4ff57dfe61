"""The article section by section: ``python -m minigan.article``."""
