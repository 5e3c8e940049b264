"""Memories of a video as frozen pytrees of fixed capacity, and pure functions on them.

`state` defines the key/value memory. `working` writes frames to it, `long_term` condenses them, and
`read` reads it. `policy` decides what is kept and read. `object_memory` holds the other state
of each object.
"""
