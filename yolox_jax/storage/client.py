"""Requests to buckets: connects to the store, repeats a request that may succeed later, and words the other failures.

The only file that knows the libraries of the stores.
"""

import dataclasses
import functools
import importlib
import itertools
import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from yolox_jax.errors import NotFoundError, UserError

T = TypeVar("T")

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0
_CONNECT_S, _SILENT_S = 10, 30  # without a connection, and without a byte on an open one
_SLOWEST_BYTES_PER_S = 200_000  # a request slower than this counts as stalled
_PACKAGES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}  # scheme: its package and the extra that installs it

_WAIT_STATUSES = {408, 409, 429}  # timeout, conflict with another write at this moment, too many requests
_REFUSED = (401, 403)
# Classes of exceptions that may not be imported where no bucket is used. OSError's own subclasses are in _may_pass.
_MAY_PASS = {
    *("aiohttp.ClientError", "requests.ConnectionError", "requests.Timeout", "requests.ChunkedEncodingError"),
    *("botocore.HTTPClientError", "botocore.ConnectionError", "botocore.ResponseParserError"),
    *("google.TransportError", "gcsfs.ChecksumError"),
}
_NO_CREDENTIALS = {
    *("botocore.NoCredentialsError", "botocore.PartialCredentialsError", "botocore.CredentialRetrievalError"),
    *("botocore.ProfileNotFound", "botocore.TokenRetrievalError", "botocore.SSOError"),
    *("google.DefaultCredentialsError", "google.RefreshError"),
}
_STALE_TOKENS = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired"}  # S3's codes, with status 400
_LOG_IN = {
    "gs": "log in with: gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS",
    "s3": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
}


class StorageError(UserError):
    """A bucket refuses a request, or cannot be used."""

    def __init__(self, what: str, advice: str, status: int | None = None):
        super().__init__(what, advice)
        self.status = status  # of the HTTP answer, if there was one


class UnreachableError(StorageError):
    """A bucket did not answer, or answered with an error that may pass, for longer than the caller would wait."""


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long a request is repeated that fails for a reason that may pass, such as a lost connection or status 503."""

    seconds: float = 60.0
    on_wait: Callable[[str], object] = lambda reason: None  # called before each wait; it may raise to give up
    # How long status 401 or 403 counts as one that may pass: a token may be refused while it is renewed.
    refused_seconds: float = 0.0


def request(address: str, call: Callable[[], T], patience: Patience) -> T:
    """Calls `call`, again and again with growing pauses while it fails for a reason that may pass.

    A FileExistsError of `call` is raised as it is.

    Raises:
      NotFoundError: there is no such object or bucket.
      UnreachableError: the patience is at its end.
      StorageError: the bucket refuses; the message names `address` and no credentials.
    """
    start = time.monotonic()
    for attempt in itertools.count():
        try:
            return call()
        except UserError:
            raise
        except FileNotFoundError as error:
            raise NotFoundError(f"there is no {address}", "check the address, and the project or account") from error
        except FileExistsError:
            raise
        except Exception as error:
            is_new = time.monotonic() - start < patience.refused_seconds
            if not (_may_pass(error) or (is_new and _status(error) in _REFUSED)):
                refusal = _refusal(address, error)
                raise (refusal or error) from (error if refusal else error.__cause__)
            wait = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**attempt) * random.uniform(0.5, 1.0)
            reason = _reason(error)
            if time.monotonic() + wait > start + patience.seconds:
                raise UnreachableError(
                    f"{address} cannot be reached ({reason})", "check the network, and try again"
                ) from error
            patience.on_wait(f"{address} cannot be reached ({reason}); trying again")
            time.sleep(wait)
    raise AssertionError  # the loop does not end


def filesystem(scheme: str) -> Any:
    """Returns fsspec's filesystem for a scheme, connected once per process.

    Raises:
      UserError: its package is not installed, or there is no such scheme.
    """
    endpoint = os.environ.get({"gs": "STORAGE_EMULATOR_HOST", "s3": "AWS_ENDPOINT_URL"}.get(scheme, ""), "")
    return _connect(scheme, endpoint, os.getpid())


@functools.lru_cache
def _connect(scheme: str, endpoint: str, pid: int) -> Any:
    """As `filesystem`. A forked process connects again, since it does not have the thread that sends requests."""
    del endpoint, pid
    package, extra = _PACKAGES.get(scheme, ("fsspec", ""))
    try:
        importlib.import_module(package)
        match scheme:
            case "gs":
                return _google()
            case "s3":
                return _amazon()
        return importlib.import_module("fsspec").filesystem(scheme, use_listings_cache=False)
    except ImportError as error:
        advice = f"pip install {package}, or in a checkout '.[{extra}]'" if extra else "install what it names"
        raise UserError(f"{scheme}:// needs a package that is not installed ({error})", advice) from error
    except ValueError as error:
        raise UserError(f"{scheme}:// is no kind of address that fsspec knows", "use gs:// or s3://") from error


def _google() -> Any:
    import aiohttp
    from gcsfs.core import GCSFileSystem  # gcsfs.GCSFileSystem asks for each bucket's type, by gRPC

    class OnceAsked(GCSFileSystem):
        """Asks once: gcsfs would repeat a failed request for half a minute, and log each with a traceback."""

        _request = getattr(GCSFileSystem._request, "__wrapped__", GCSFileSystem._request)

    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # every error is raised and worded here
    limits = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_SILENT_S)
    token = "anon" if os.environ.get("STORAGE_EMULATOR_HOST") else None
    return OnceAsked(token=token, requests_timeout=limits, use_listings_cache=False, skip_instance_cache=True)


def _amazon() -> Any:
    import s3fs

    for name in ("s3fs", "aiobotocore", "botocore"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    limits = {"connect_timeout": _CONNECT_S, "read_timeout": _SILENT_S, "retries": {"total_max_attempts": 1}}
    connected = s3fs.S3FileSystem(config_kwargs=limits, use_listings_cache=False, skip_instance_cache=True)
    connected.retries = 1  # `request` repeats
    return connected


def send(address: str, method: str, *args: Any, num_bytes: int = 0, patience: Patience, **kwargs: Any) -> Any:
    """Calls a method of the address's filesystem by `request`; one that transfers `num_bytes` gets time for them."""
    scheme = address.partition("://")[0]

    def call() -> Any:
        store = filesystem(scheme)
        limit = {"timeout": _SILENT_S + num_bytes / _SLOWEST_BYTES_PER_S} if store.async_impl else {}
        return getattr(store, method)(*args, **kwargs, **limit)

    return request(address, call, patience)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yields the error and what caused it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _class_names(error: BaseException) -> set[str]:
    return {f"{cls.__module__.partition('.')[0]}.{cls.__name__}" for cls in type(error).__mro__}


def _status(error: BaseException) -> int | None:
    """Returns the HTTP status of an answer that became this error, if the error still knows it."""
    for each in _chain(error):
        response = getattr(each, "response", None)
        if isinstance(response, dict):  # botocore's
            return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) or None
        code = getattr(each, "code", None) or getattr(each, "status", None)
        if str(code).isdigit():
            return int(str(code))
        if isinstance(each, PermissionError) or str(each).startswith("Forbidden:"):  # gcsfs's
            return 403
    return None


def _may_pass(error: Exception) -> bool:
    if isinstance(error, ConnectionError | TimeoutError):  # S3's RequestTimeout has status 400
        return True
    status = _status(error)
    if any("google.TransportError" in _class_names(each) for each in _chain(error)):
        return True  # a metadata server that does not answer becomes a 401
    if status is not None and status >= 400:
        return status >= 500 or status in _WAIT_STATUSES
    return bool(_class_names(error) & _MAY_PASS)


def _refusal(address: str, error: Exception) -> UserError | None:
    """Returns the message for an error that will not pass, or None for one that is not the bucket's."""
    scheme = address.partition("://")[0]
    log_in = _LOG_IN.get(scheme, "check the credentials")
    status = _status(error)
    answers = (getattr(each, "response", None) for each in _chain(error))
    codes = {each.get("Error", {}).get("Code") for each in answers if isinstance(each, dict)}  # botocore's
    if codes & _STALE_TOKENS or any(_class_names(each) & _NO_CREDENTIALS for each in _chain(error)):
        return StorageError(f"{address} needs credentials, and none were found that are valid", log_in)
    if status == 401:
        return StorageError(f"{address} needs credentials (status 401)", log_in)
    if status == 403:
        return StorageError(
            f"{address} is refused (status 403)",
            "check the bucket's name and that this account may read and write there",
        )
    is_answer = status is not None and status >= 400
    if is_answer or isinstance(error, OSError) or str(error).startswith("Bad Request:"):
        return StorageError(f"{address} is refused ({_reason(error)})", "check the address", status)
    return None


def _reason(error: Exception) -> str:
    status = _status(error)
    if status is not None and status >= 400:
        return f"status {status}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return without_credentials(str(error)) or type(error).__name__


def without_credentials(text: str, most: int = 160) -> str:
    """Returns the first line of a library's message without what may hold a key, a token or a signature."""
    line = text.strip().split("\n")[0]
    line = re.sub(r"\?\S+", "?…", line)  # the query of a signed address
    line = re.sub(r"(?i)\b(bearer|basic)\s+\S+", r"\1 …", line)
    line = re.sub(r"(?i)(key|token|secret|signature|credential|password)([\"']?\s*[=:]\s*)\S+", r"\1\2…", line)
    line = re.sub(r"//[^/@\s]+@", "//…@", line)
    return line if len(line) <= most else line[:most] + "…"
