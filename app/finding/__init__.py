"""Finding what a person has in front of them: ports, addresses and accounts are tried, and every try is shown.

``kinds`` lists what there is to choose from and makes the finder for it, ``search`` holds what every finder is and
tells, ``lines``, ``networks``, ``dial_in`` and ``services`` are the finders. Nothing is written to a device and nothing
is saved; what was found comes as proposals for the tree.
"""
