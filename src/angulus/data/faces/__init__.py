"""From photos to aligned faces: detection, alignment, and the report on photos without one good face."""
