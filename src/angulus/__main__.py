"""`python -m angulus`."""

from angulus.cli.main import main

main()
