"""What AWS really does, asked once: the same calls to a real account and to the embedded AWS.

``python -m tests.real_aws --yes-create-in ACCOUNT_ID``, with the credentials of somebody who may
create users, roles and keys in that account (AWS_PROFILE, or whatever boto3 finds). It is never
part of a test run. ``--local`` asks an embedded AWS in the real one's place, to try the harness.

``sides`` is whom to ask, ``stage`` what is created and removed, ``facts`` what is asked.
"""
