"""Photos to aligned faces: detection, alignment, and the report of what was found."""
