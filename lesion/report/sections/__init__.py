"""The sections of the page: for each a module that makes tables, figures and texts, and a template that prints them.

Each module has `section(folder)`, which returns {name: value} for its template, or None if there is nothing to show.
"""
