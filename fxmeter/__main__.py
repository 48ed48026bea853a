"""``python -m fxmeter`` is the ``fxmeter`` command."""

from fxmeter.annotators.cli.main import main

if __name__ == "__main__":
    main()
