"""Passwords: which ones are accepted, how they are hashed, and how many are hashed at once.

Keeps nothing: the hash is a field of its user (`accounts/users.py`).

Every password is read in Unicode form NFKC, so that it is the same password on every keyboard (NIST SP
800-63B-4, 3.1.1.2). It has 8 characters or more, 1,024 bytes of UTF-8 or fewer (72 when bcrypt was chosen,
which would ignore the rest), and any characters at all: there are no composition rules. Refused are the
common ones and the user's own email and names.

Hashes are argon2id in PHC form, or bcrypt when `bcrypt_rounds` is chosen; both verify, whichever is chosen, and so do
the imported ones of `legacy.py`. A PHC string may leave out the parameters that are the default (its specification,
"PHC string format"). So the 21 letters that nearly every hash has in common are not kept: `$argon2id$<salt>$<hash>`.
"""

import asyncio
import os
import re
import secrets
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import dropwhile
from pathlib import Path
from typing import Protocol, TypeVar

import bcrypt
from argon2 import Parameters, PasswordHasher, Type, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError

from service import metrics
from service.accounts import legacy
from service.errors import Overloaded, WeakPassword

SHORTEST = 8  # characters
LONGEST = 1024  # bytes
MOST_MEMORY = 512 * 1024  # KiB that an imported hash may ask for
BCRYPT_LONGEST = 72  # bytes; bcrypt reads no further

# OWASP's first choice for argon2id: 19 MiB and about 17 ms of one core for each hash.
ARGON2ID = Parameters(type=Type.ID, version=19, salt_len=16, hash_len=32, time_cost=2, memory_cost=19456, parallelism=1)

# What `$argon2id$<salt>$<hash>` leaves out. Not to be changed, whatever becomes of the parameters above.
_LEFT_OUT = "$v=19$m=19456,t=2,p=1"

T = TypeVar("T")

_FULL, _PATIENCE = (metrics.HASHING_REFUSED.labels(why) for why in ("full", "patience"))


class Passwords:
    """The policy and the hashes; `threads` tells how busy the hashing is."""

    def __init__(
        self,
        *,
        common: frozenset[str],
        queue: int,
        patience: float = 0.9,
        workers: int = os.cpu_count() or 1,
        bcrypt_rounds: int | None = None,
        parameters: Parameters = ARGON2ID,
        threads: "Callable[..., HashingThreads] | None" = None,
    ) -> None:
        self._common = common
        self._argon2id, self._bcrypt = _Argon2id(parameters), _Bcrypt(bcrypt_rounds or 12)
        self._legacy = _Legacy()
        self._chosen: _Scheme = self._argon2id if bcrypt_rounds is None else self._bcrypt
        self._longest = LONGEST if bcrypt_rounds is None else BCRYPT_LONGEST
        self.decoy = self._chosen.hash(secrets.token_urlsafe())  # nobody's password, at everybody's cost
        self.threads = (threads or HashingThreads)(workers=workers, queue=queue, patience=patience)

    def check(self, password: str, *personal: str | None, field: str = "password") -> None:
        """Raise `WeakPassword` unless the policy accepts it for the user with this email and these names."""
        if not _is_text(password):
            raise WeakPassword("This is not valid Unicode text.", field)
        if not _fits(password, self._longest):
            raise WeakPassword(f"Use {self._longest} bytes or fewer.", field)
        if len(_normal(password)) < SHORTEST:
            raise WeakPassword(f"Use {SHORTEST} characters or more.", field)
        if _folded(password) in self._common:
            raise WeakPassword("This password is on the list of those that are guessed first.", field)
        if _is_personal(_folded(password), personal):
            raise WeakPassword("Use something other than your own email or name.", field)

    async def hash(self, password: str) -> str:
        """Hash a password that `check` accepted; `Overloaded` when too many are being hashed."""
        return await self.threads.run(partial(self._chosen.hash, password))

    async def verify(self, password: str, phc: str | None) -> bool:
        """Say whether this is the password behind the hash; `Overloaded` when too many are being hashed.

        No hash (an unknown user, or one without a password) and a hash that nobody can read cost the same
        work as a wrong password, so that the time tells nothing.
        """
        if not (_is_text(password) and _fits(password, LONGEST)):
            return False
        scheme = self._scheme_of(phc or "")
        if phc is None or scheme is None:
            await self.threads.run(partial(self._chosen.matches, password, self.decoy))
            return False
        return await self.threads.run(partial(scheme.matches, password, phc))

    def outdated(self, phc: str) -> bool:
        """Say whether the hash is of another algorithm, or of other parameters, than chosen now."""
        return self._scheme_of(phc) is not self._chosen or self._chosen.outdated(phc)

    def readable(self, phc: str) -> bool:
        """Say whether this is a hash that `verify` could compare with."""
        scheme = self._scheme_of(phc)
        return scheme is not None and scheme.readable(phc)

    def close(self) -> None:
        """End the threads; blocks for what is being hashed at this moment, and begins nothing new."""
        self.threads.close()

    def _scheme_of(self, phc: str) -> "_Scheme | None":
        if phc.startswith("$argon2id$"):
            return self._argon2id
        if _Bcrypt.FORM.fullmatch(phc):
            return self._bcrypt
        return self._legacy if self._legacy.readable(phc) else None


class HashingThreads:
    """A few threads for work that keeps a core busy, and a queue of bounded length and patience.

    Who comes first is served first. A waiter holds no thread and no place in the executor, only its turn:
    one that gave up or was cancelled costs nothing later. Work that has begun cannot be stopped, so its
    thread counts as taken until it ends, even when nobody waits for the result any more.
    """

    def __init__(self, *, workers: int, queue: int, patience: float) -> None:
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="hashing")
        self._free = asyncio.Semaphore(workers)
        self._patience = patience
        self.workers, self.queue = workers, queue
        self.waiting = 0
        self.running = 0

    async def run(self, work: Callable[[], T]) -> T:
        """Do the work in a thread; `Overloaded` when the queue is full or patience ran out."""
        await self._turn()
        self.running += 1
        job = asyncio.get_running_loop().run_in_executor(self._executor, work)
        job.add_done_callback(self._done)
        # Shielded: were the job itself cancelled, its turn would be given away while its thread works on.
        return await asyncio.shield(job)

    def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)

    async def _turn(self) -> None:
        if self._free.locked() and self.waiting >= self.queue:
            _FULL.inc()
            raise Overloaded
        self.waiting += 1
        try:
            async with asyncio.timeout(self._patience):
                await self._free.acquire()
        except TimeoutError as error:
            _PATIENCE.inc()
            raise Overloaded from error
        finally:
            self.waiting -= 1

    def _done(self, _: object) -> None:
        self.running -= 1
        self._free.release()


class _Scheme(Protocol):
    """A way to hash. Its methods keep a core busy: in a thread, please, except for `outdated`."""

    def hash(self, password: str) -> str: ...
    def matches(self, password: str, phc: str) -> bool: ...
    def outdated(self, phc: str) -> bool: ...
    def readable(self, phc: str) -> bool: ...


class _Argon2id:
    def __init__(self, parameters: Parameters) -> None:
        self._hasher = PasswordHasher.from_parameters(parameters)

    def hash(self, password: str) -> str:
        return self._hasher.hash(_normal(password)).replace(_LEFT_OUT + "$", "$", 1)

    def matches(self, password: str, phc: str) -> bool:
        try:
            return self._hasher.verify(_in_full(phc), _normal(password))
        except (VerificationError, ValueError):  # a wrong password, or a hash that cannot be read
            return False

    def outdated(self, phc: str) -> bool:
        try:
            return self._hasher.check_needs_rehash(_in_full(phc))
        except InvalidHashError:
            return True

    def readable(self, phc: str) -> bool:
        try:
            cost = extract_parameters(_in_full(phc))
        except InvalidHashError:
            return False
        whole = cost.salt_len > 0 and cost.hash_len > 0
        return whole and cost.memory_cost <= MOST_MEMORY and cost.time_cost <= 100


def _in_full(phc: str) -> str:
    """An argon2id hash with all its parameters."""
    name, *rest = phc.removeprefix("$").split("$")
    return f"${name}{_LEFT_OUT}${'$'.join(rest)}" if len(rest) == 2 else phc


class _Bcrypt:
    FORM = re.compile(r"\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}")

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds

    def hash(self, password: str) -> str:
        return bcrypt.hashpw(_normal(password).encode(), bcrypt.gensalt(self._rounds)).decode()

    def matches(self, password: str, phc: str) -> bool:
        # An imported hash may have been made from the password as it was typed: that spelling comes second.
        return any(self._matches(spelling, phc) for spelling in dict.fromkeys((_normal(password), password)))

    def _matches(self, spelling: str, phc: str) -> bool:
        """Compare in full: what is too long for bcrypt does not match, at the cost of what does."""
        secret = spelling.encode()
        try:
            begins_alike = bcrypt.checkpw(secret[:BCRYPT_LONGEST], phc.encode())
        except ValueError:  # a salt or a cost that cannot be
            return False
        return begins_alike and len(secret) <= BCRYPT_LONGEST

    def outdated(self, phc: str) -> bool:
        return int(phc[4:6]) < self._rounds

    def readable(self, phc: str) -> bool:
        return 4 <= int(phc[4:6]) <= 20


class _Legacy:
    def hash(self, password: str) -> str:
        raise AssertionError("what is imported is replaced, never made")

    def matches(self, password: str, phc: str) -> bool:
        found = legacy.read(phc)
        return found is not None and any(map(found.matches, dict.fromkeys((_normal(password), password))))

    def outdated(self, phc: str) -> bool:
        return True

    def readable(self, phc: str) -> bool:
        return legacy.read(phc) is not None


def load_common(path: Path) -> frozenset[str]:
    """Read the common passwords: one a line, in any case and order, spaces counting as they stand.

    The lines that begin with `#` at the top of the file are its header. After the first that does not, an
    empty line for example, `#` is a character like any other.
    """
    with path.open(encoding="utf-8-sig") as lines:
        entries = dropwhile(lambda line: line.startswith("#"), lines)
        return frozenset(_folded(entry) for line in entries if (entry := line.rstrip("\n")))


def _is_personal(password: str, personal: tuple[str | None, ...]) -> bool:
    """Say whether the password is an email, a name or a part of one, give or take a few other characters.

    Case, spaces and punctuation do not count: `Ada.Lovelace1815!` is her name. It takes as many characters
    around the word as would make a password of their own to make the whole acceptable.
    """
    words = {word for text in personal if text for word in _words(_folded(text))}
    letters = _squeezed(password)
    return any(
        candidate in words and len(letters) - len(candidate) < SHORTEST
        for candidate in (letters, _without_digits_around(letters))
    )


def _words(text: str) -> Iterator[str]:
    local_part, _, _ = text.partition("@")
    for word in (text, local_part, *re.split(r"[\W_]+", text)):
        squeezed = _squeezed(word)
        yield from filter(None, (squeezed, _without_digits_around(squeezed)))


def _squeezed(text: str) -> str:
    return "".join(filter(str.isalnum, text))


def _without_digits_around(text: str) -> str:
    return re.sub(r"^\d+|\d+$", "", text)


def _normal(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def _folded(text: str) -> str:
    return _normal(_normal(text).casefold())


def _is_text(text: str) -> bool:
    """False for lone surrogates, which JSON can spell but UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _fits(password: str, longest: int) -> bool:
    """Measured as typed before as normalised: the time to normalise is quadratic in a run of accents."""
    return len(password.encode()) <= LONGEST and len(_normal(password).encode()) <= longest
