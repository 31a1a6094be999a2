"""boto3's client for Rekognition, and what went wrong with it as one sentence.

Keys, region, profile, proxy and endpoint are found where boto3 always finds them; on Colab, keys among its secrets too.
"""

import sys
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from helpers.workspace import UserError

CALLS = 8  # under way at a time
CONFIG = Config(
    retries={"mode": "adaptive", "total_max_attempts": 6}, connect_timeout=10, read_timeout=20,
    max_pool_connections=CALLS,
)  # fmt: skip
AMAZON = "amazonaws.com"

COLAB_SECRETS = {  # arguments of boto3.Session, and the secrets' names
    "aws_access_key_id": "AWS_ACCESS_KEY_ID", "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "aws_session_token": "AWS_SESSION_TOKEN", "region_name": "AWS_DEFAULT_REGION",
}  # fmt: skip

KEYS = "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_DEFAULT_REGION (on Colab among its secrets)"
# What makes every further call useless, by the code that Amazon answers or the name of boto3's error. Their own
# messages are never shown, for they can hold keys, account numbers and a proxy's password.
SENTENCES = {
    "NoCredentialsError": f"There are no AWS credentials: {KEYS}.",
    "PartialCredentialsError": f"The AWS credentials are not complete: {KEYS}.",
    "NoRegionError": "There is no AWS region: set AWS_DEFAULT_REGION, to us-east-1 for instance.",
    "InvalidRegionError": "AWS_DEFAULT_REGION is not the name of a region, as us-east-1 is: correct it.",
    "HTTPClientError": "boto3 could not send a call: see that no blank or line break got into the keys.",
    "ValueError": "AWS_ENDPOINT_URL_REKOGNITION is no address, as https://host is: correct it or unset it.",
    "ProfileNotFound": "AWS_PROFILE names a profile that AWS's files do not have: correct it or unset it.",
    "SubscriptionRequiredException": "The AWS account is not signed up for Rekognition: do so in AWS's console.",
    **dict.fromkeys(
        ("AccessDeniedException", "AccessDenied"),
        "The AWS user may not call DetectFaces: attach the policy AmazonRekognitionReadOnlyAccess to it, in AWS's IAM.",
    ),
    **dict.fromkeys(
        ("UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException", "SignatureDoesNotMatch",
         "IncompleteSignatureException", "MissingAuthenticationTokenException"),
        f"Amazon refused the AWS credentials: {KEYS}, and see that this computer's clock is right.",
    ),
    **dict.fromkeys(
        ("ExpiredTokenException", "SSOTokenLoadError", "UnauthorizedSSOTokenError", "TokenRetrievalError"),
        "The AWS credentials have expired: get new ones (with `aws sso login`, say).",
    ),
    **dict.fromkeys(
        ("EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError", "SSLError"),
        "Rekognition cannot be reached: check the network, and the proxy if there is one.",
    ),
}  # fmt: skip


def connect():
    """boto3's client, by boto3's own settings; UserError says in one sentence what is missing or wrong."""
    try:
        session = boto3.Session(**_colab_secrets())
        if (credentials := session.get_credentials()) is None:
            raise NoCredentialsError
        credentials.get_frozen_credentials()
        client = session.client("rekognition", config=CONFIG)
        name = host(client)
    except ClientError as problem:  # from another service, which was to give the keys of a role
        code = problem.response["Error"].get("Code")
        raise UserError(f"AWS gives no keys for the profile or role that is set ({code}): check it.") from None
    except (BotoCoreError, ValueError) as problem:
        name = type(problem).__name__
        raise UserError(SENTENCES.get(name, f"boto3 cannot use AWS's settings ({name}): check them.")) from None
    region, partitions = client.meta.region_name, session.get_available_partitions()
    regions = [session.get_available_regions("rekognition", partition) for partition in partitions]
    if service(name) == AMAZON and region not in sum(regions, []):
        known = ", ".join(session.get_available_regions("rekognition"))
        raise UserError(f"boto3 knows no Rekognition in the region {region}: set AWS_DEFAULT_REGION to one of {known}.")
    return client


def host(client):
    """The name of the host that a client calls."""
    return urlsplit(client.meta.endpoint_url).hostname


def service(host):
    """`AMAZON` for any host of Amazon's, else the host itself (a server that someone runs for tests, say)."""
    return AMAZON if host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws")) else host


def configured_service():
    """The service that AWS's settings name: `AMAZON`, unless AWS_ENDPOINT_URL_REKOGNITION or a profile says another."""
    try:  # this takes neither keys nor a region
        session = boto3.Session()
        return service(host(session.client("rekognition", session.region_name or "us-east-1")))
    except (BotoCoreError, ValueError):
        return AMAZON


def _colab_secrets():
    """On Colab, the keys among its secrets, as arguments of a boto3 session; {} anywhere else."""
    if "google.colab" not in sys.modules:
        return {}
    from google.colab import userdata

    found = {}
    for argument, name in COLAB_SECRETS.items():
        try:
            found[argument] = userdata.get(name).strip()
        except userdata.SecretNotFoundError:
            continue
        except Exception as problem:  # no access, or no answer from the browser
            kind = type(problem).__name__
            raise UserError(f"Colab does not give its secret {name} ({kind}): switch its access on.") from None
    if ("aws_access_key_id" in found) != ("aws_secret_access_key" in found):
        raise UserError(SENTENCES["PartialCredentialsError"])
    return found
