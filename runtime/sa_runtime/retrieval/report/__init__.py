"""The report of ``sa-deploy evaluate --report``: one HTML file that people look at.

``build`` makes it; ``page.html``, ``page.css`` and the scripts are what it is made of.
"""
