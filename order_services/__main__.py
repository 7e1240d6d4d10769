"""`python -m order_services`."""

from order_services.cli import main

if __name__ == "__main__":
    main()
