"""A small Django project, both project and app: what tests of Django trace."""
