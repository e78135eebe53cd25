"""``python -m sa_deploy``."""

from sa_deploy.app import main

main()
