"""How each benchmark lays out its files; every module turns a directory into a list of videos."""
