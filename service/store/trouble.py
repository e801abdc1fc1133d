"""Why Redis does not answer, for whoever wrote `REDIS_URL`: what is wrong, and what to do about it."""

import socket
import ssl
from collections.abc import Iterator

from redis.exceptions import AuthenticationError, BusyLoadingError, InvalidResponse
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.errors import StoreUnavailable
from service.store.address import Address
from service.store.node import NoMaster

_REFUSED = ("Connect call failed", "Connection refused")  # of several addresses of a host, each in its own way
_FOR_ANOTHER, _OUT_OF_DATE = (62, 64), (9, 10)  # X509_V_ERR_ of OpenSSL: host or IP mismatch; not yet, or no longer
_UNREADABLE = ("NO_CERTIFICATE_OR_CRL_FOUND", "PEM lib")  # of a file of ours, before anybody was asked


def trouble(away: StoreUnavailable, url: str) -> str:
    """What keeps the Redis of this address away, in a sentence; never its user or password."""
    address = Address.read(url)
    where = ", ".join(f"{host}:{port}" for host, port in address.hosts) or str(address.options.get("path"))
    for cause in _causes(away):
        if known := _known(cause, address, where):
            return known
    if address.kind == "sentinel":
        return (
            f"No Sentinel at {where} answers and names a master {address.master!r}: correct REDIS_URL, or start them."
        )
    if address.kind == "cluster":
        return f"No server at {where} answers and tells of a Cluster: correct REDIS_URL, or start it."
    return f"Redis at {where} does not answer."


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause = error.__cause__ or error.__context__
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _known(cause: BaseException, address: Address, where: str) -> str | None:
    tls = "ssl" in address.options.get("connection_class", object).__name__.lower()
    match cause:
        case AuthenticationError() if "password" in address.options:
            return f"Redis at {where} refuses the user or the password: correct them in REDIS_URL."
        case AuthenticationError():
            return f"Redis at {where} asks for a password: write it into REDIS_URL, as in redis://:password@host."
        case InvalidResponse():
            return f"What answers at {where} is no Redis: correct host and port in REDIS_URL."
        case BusyLoadingError():
            return f"Redis at {where} is still reading its data: wait."
        case NoMaster():
            return f"Redis at {where} is a replica and takes no writes: write its master into REDIS_URL."
        case socket.gaierror():
            return f"There is no host such as in {where}: correct REDIS_URL, or look at the DNS."
        case ssl.SSLCertVerificationError() if _verdict(cause) in _FOR_ANOTHER:
            return f"Redis at {where} has a certificate for another host: write the name in it into REDIS_URL."
        case ssl.SSLCertVerificationError() if _verdict(cause) in _OUT_OF_DATE:
            return f"Redis at {where} has a certificate that is not valid today: renew it, or set the clock."
        case ssl.SSLCertVerificationError():
            return (
                f"Redis at {where} has a certificate of an unknown authority: name it with ?ssl_ca_certs= in REDIS_URL."
            )
        case ssl.SSLError() if any(word in str(cause) for word in _UNREADABLE):
            return "A file that ?ssl_ of REDIS_URL names has no certificate, or no key, in it: correct the file."
        case ssl.SSLError():
            return f"Redis at {where} does not speak TLS as rediss:// wants it: correct the port, or write redis://."
        case FileNotFoundError() | PermissionError() if tls:
            return "A file that ?ssl_ of REDIS_URL names is not there, or not for this user to read: correct that."
        case FileNotFoundError():
            return f"There is no socket {where}: start Redis, or correct the path in REDIS_URL."
        case PermissionError():
            return f"This user may not open {where}: change its permissions, or the path in REDIS_URL."
        case OSError() if any(word in str(cause) for word in _REFUSED):
            return f"Nobody listens at {where}: start Redis there, or correct host and port in REDIS_URL."
        case TimeoutError() | RedisTimeoutError() if tls:
            return f"{where} does not answer in TLS: is the port right, is a firewall between, should it be redis://?"
        case TimeoutError() | RedisTimeoutError():
            return f"{where} does not answer in time: is it the right address, and is a firewall between?"
    return None


def _verdict(refusal: ssl.SSLCertVerificationError) -> int:
    return getattr(refusal, "verify_code", 0)
