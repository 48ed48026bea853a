"""The commands, one after another as people meet them; what they share is in the room around them."""
