"""One small app that mounts the gate, to try it with and to copy from.

``python -m server_example`` reads the environment of the original's example::

    AWS_ACCOUNT_ID       account whose identities may sign in (several: with commas)
    AWS_DEFAULT_REGION   region of the key, where KMS_KEY_ID is not an ARN
    KMS_KEY_ID           key that the sign-ins are sealed for: ARN, id or alias
    KMS_SALT             fixed salt of the encryption context; absent: one that rotates
    SECRET_KEY           signs the sessions; or, in its place,
    IAM_AUTH_KEYRING     a key ring that rotates: s3://BUCKET/PREFIX/NAME or file:/DIR/NAME
    IAM_AUTH_ORIGINS     what browsers call the app, such as http://app.internal; see below
    IAM_AUTH_REPLAY      file:PATH where several workers share one memory of used proofs
    BIND, PORT           where to listen; 127.0.0.1 and 8082 if absent

With ``IAM_AUTH_ORIGINS`` it takes every proof, by the bound protocol and by the original's;
``IAM_AUTH_PROOFS=signed-identity`` leaves the original's out. Without, it behaves as the original's
example: it answers to any name, and takes session credentials alone.

Each variable may also be given as ``NAME_FILE``, the path of a file that holds it, which keeps
secrets out of the sight of other processes. Every other ``IAM_AUTH_*`` setting of the gate works
too.

``policies/`` has what AWS has to allow: ``user.json`` for the people, ``server.json`` for the role
that the app runs as, ``key.json`` for the KMS key. In them the app and its key are in account
111122223333 and the people in 222222222222; where both are the same, the second statement of
``key.json`` is not needed.
"""
