"""Redis, with the bounds that make an outage a 503 and never a wrong answer.

Everything the service says to Redis goes through `Store.run` or `Store.glance`. What Redis is, one server, Sentinels
or a Cluster, is in `REDIS_URL` (`address.py`) and known to nobody else. From above to below:

    store.py     the policy: what is repeated, what is confirmed, what may be lost
    allowance.py how long anybody waits
    glances.py   reads that are asked together
    watch.py     who is the master, and what a new one has to hear again
    condition.py how Redis is set up, and what it could forget
    trouble.py   why it does not answer, for whoever wrote REDIS_URL
    replies.py   what is an answer, what will pass, and what is a mistake
    topology.py  which server answers for which key, and how a change of that is learned
    node.py      one server: its connections, its breaker, and who it says it is
    wire.py      the connection to a server that calls share
    memory.py    what Redis has said and promises to tell changes of
    commands.py  what can be said: commands and Lua scripts
"""

from service.store.address import Address
from service.store.allowance import be_patient, patience
from service.store.commands import Command, Script
from service.store.condition import Condition
from service.store.node import connect
from service.store.replies import LOST, Lost
from service.store.store import Store
from service.store.topology import Single, Topology, reach
from service.store.trouble import trouble

__all__ = [
    "LOST", "Address", "Command", "Condition", "Lost", "Script", "Single", "Store", "Topology",
    "be_patient", "connect", "patience", "reach", "trouble",
]  # fmt: skip
