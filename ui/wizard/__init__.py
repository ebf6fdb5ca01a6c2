"""The connection wizard: what is in front of a person is chosen by its picture, looked for, tested and saved.

``window`` holds the dialog; ``kinds``, ``where``, ``search``, ``trial`` and ``saving`` are its pages, ``pictures`` and
``qr`` what is drawn. The search itself is ``app.finding``; secrets and the test are those of the connection form.
"""
