"""`python -m mmrec_stream` is `mmrec`."""

from mmrec_stream.cli import main

main()
