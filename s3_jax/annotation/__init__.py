"""Interactive annotation of a video: masks are given, propagated, corrected and exported.

`annotator` stores the given masks and propagates them to the other frames. `chain` runs a session
over the frames in one direction and returns to snapshots (`snapshots`). `found` describes a frame's
result.

`access` and `server` serve the page. `studio` handles its requests, `document` and `journal`
keep the user's edits, `worker` is the thread that owns the annotator, and `project` keeps the
results on disk.
"""
