"""Memories of a video as frozen pytrees of fixed capacity, and pure functions on them.

`state` defines the key/value memory; `working` writes frames to it and `long_term` condenses them;
`read` answers queries; `policy` decides which of that is done. `object_memory` holds the state that
belongs to an object as a whole.
"""
