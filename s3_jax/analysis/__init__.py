"""What compiled programs cost, read from the programs themselves; for devices not attached too."""
