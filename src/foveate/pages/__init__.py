"""The page where a person watches a model look back: ``foveate app``.

``work`` does everything with a model in one thread, ``server`` is the ASGI application, the other modules have one view
each, and ``static/`` is the page itself: it needs no build and fetches nothing from elsewhere.
"""
