"""The soak, in short: `python -m tests.faults.soak` goes on for as long as one likes."""

from contextlib import ExitStack

import pytest

from tests.faults.figures import Figures, as_property
from tests.faults.soak import FORMATIONS, soak

SECONDS, BROWSERS, SEED = 13, 40, 38  # for each formation


@pytest.mark.parametrize("formation", FORMATIONS)
async def test_faults_by_chance_make_no_answer_wrong(home, request, formation):
    with ExitStack() as stack:
        place = home / formation
        place.mkdir()
        stage = FORMATIONS[formation](place, stack, 2)
        ledger, told = await soak(stage, SECONDS, BROWSERS, SEED)

        exceptions = [line for each in stage.deployment.instances for line in each.exceptions()]
    lost = sum(call.lost for call in ledger.calls)
    back = max(cost.recovered for cost in told)
    name, waited = f"soak, {formation}: {len(told)} faults", (ledger.longest(), ledger.held())
    summary = Figures(name, len(ledger.calls), lost, ledger.sessions_lost, *waited, back)
    request.node.user_properties.append(as_property(summary))
    assert not ledger.wrong, "\n".join(ledger.wrong)
    assert exceptions == []
