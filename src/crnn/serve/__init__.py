"""Reading words over HTTP: the limits, the batches that all clients share, and what is spoken.

``crnn serve`` is the way in; :func:`crnn.serve.app.create_app` gives the application to whoever runs it otherwise.
"""
