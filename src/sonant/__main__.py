"""python -m sonant"""

from sonant.cli import main

main()
