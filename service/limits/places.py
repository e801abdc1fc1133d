"""Places: from where, and with which devices, an account was signed in to lately.

Redis
    known:<hmac>  string  devices that an account was signed in to with from an address, the latest last; thirty days

A device is what its user agent says in words, `Firefox on Windows`: without the version, which changes every month.
All of it is a hint, which fails nobody. While Redis cannot tell, everybody is a stranger to the limits, and nothing is
said about a new device.

Accounts and addresses are HMACs, so that nothing in Redis tells who has signed in from where.
"""

import base64
from dataclasses import dataclass

from service.client import Client
from service.store import LOST, Command, Lost, Store
from service.vault import Vault

_LASTS = 30 * 24 * 3600  # seconds
_MOST = 12  # devices that are remembered of a place; only a client that changes its name has more
_ANY = "1"  # what earlier versions wrote, who did not look at devices


@dataclass(frozen=True)
class Seen:
    """With which devices an account was signed in to from one place lately; `None` where it was not at all."""

    devices: tuple[str, ...] | None

    @property
    def is_new_place(self) -> bool:
        return self.devices is None

    def is_new(self, device: str) -> bool:
        """Whether nobody has lately signed in with such a device from there."""
        return self.devices is None or not {device, _ANY} & {*self.devices}


class Places:
    """Remembers places, and recognises them."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._key = vault.key("limit-subject")

    async def knows(self, account: str, address: str) -> bool:
        """Whether somebody is known to have signed in to the account from this address in the last weeks."""
        (found,) = await self._store.run(hints=[("EXISTS", self._name(account, address))])
        return found is not LOST and bool(found)

    def reading(self, account: str, client: Client) -> Command:
        """The hint that tells what is known of the client's place; `read` understands its reply."""
        return ("GET", self._name(account, client.network))

    def read(self, kept: str | Lost | None) -> Seen | None:
        """What is known of a place; `None` where that could not be told."""
        if kept is LOST:
            return None
        return Seen(None if kept is None else tuple(kept.split(",")))

    async def remember(self, account: str, client: Client, seen: Seen | None) -> None:
        """Somebody has signed in to the account with this device from this place, of which this was known.

        Where that could not be told nothing is noted: the other devices would be forgotten by it.
        """
        if seen is None:
            return
        others = [device for device in seen.devices or () if device not in (client.device, _ANY)]
        devices = ",".join([*others, client.device][-_MOST:])
        await self._store.run(aside=[("SET", self._name(account, client.network), devices, "EX", _LASTS)])

    def _name(self, account: str, address: str) -> str:
        mac = self._key.mac("\0".join(("known", account, address)).encode("utf-8", "surrogatepass"))
        return "known:" + base64.urlsafe_b64encode(mac[:15]).decode("ascii")
