"""Training of the prompt head: views of pictures, simulated clicks and boxes, loss."""
