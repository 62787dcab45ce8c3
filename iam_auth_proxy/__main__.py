"""``python -m iam_auth_proxy`` is the command ``iam-auth-proxy``."""

from iam_auth_proxy.cli import main

if __name__ == "__main__":
    main()
