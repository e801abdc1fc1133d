"""Redis, with the bounds that make an outage a 503 and never a wrong answer.

Everything the service says to Redis goes through `Store.run` or `Store.glance`. What Redis is, one server, Sentinels
or a Cluster, is in `REDIS_URL` (`address.py`) and known to nobody else. From above to below:

    store.py     the policy: how long anybody waits, what is repeated, what is confirmed, what is said again
    topology.py  which server answers for which key, and how a change of that is learned
    node.py      one server: its connections, its breaker, and who it says it is
    wire.py      the connection to a server that calls share
    memory.py    what Redis has said and promises to tell changes of
    commands.py  what can be said: commands and Lua scripts
"""

from service.store.address import Address
from service.store.commands import Command, Script
from service.store.node import connect
from service.store.store import LOST, Condition, Lost, Store, be_patient, patience
from service.store.topology import Single, Topology, reach

__all__ = [
    "LOST", "Address", "Command", "Condition", "Lost", "Script", "Single", "Store", "Topology",
    "be_patient", "connect", "patience", "reach",
]  # fmt: skip
