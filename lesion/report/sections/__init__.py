"""The sections of the page: a module each, which makes tables, figures and texts, and a template that prints them.

Each module has `section(folder, ...)`, which returns what its template prints, or None where there is nothing to show.
"""
