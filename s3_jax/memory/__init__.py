"""Memories of a video as frozen pytrees of fixed capacity, and pure functions on them.

`state` lays out the key/value memory; `working` writes frames to it and `long_term` condenses
them; `read` answers queries; `policy` says which of that is done. `object_memory` holds what
belongs to an object as a whole.
"""
