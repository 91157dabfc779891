"""`python -m angulus`."""

from angulus.cli import main

main()
