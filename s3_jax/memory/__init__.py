"""Memories of a video as frozen pytrees of fixed capacity, and pure functions on them.

`state` defines the key/value memory. `working` writes frames to it, `long_term` condenses them, and
`read` reads it. `policy` decides what is kept and read. `object_memory` has the state that belongs
to an object as a whole.
"""
