"""A pytest plugin for the YubiHSM client's own device tests, which stay as they are.

They wait five seconds wherever real hardware restarts; the simulator has restarted before it answers, so each wait is
cut to 10 ms. How every test ended goes as one JSON object a line into the file that SSHSM_TEST_OUTCOMES names.
"""

import json
import os
import time

_sleep = time.sleep
time.sleep = lambda seconds: _sleep(min(seconds, 0.01))


def pytest_runtest_logreport(report):
    # The call decides; around it, set-up and tear-down only count when they are more than a pass.
    if report.when == "call" or report.outcome != "passed":
        outcome = {"test": report.nodeid, "outcome": report.outcome, "reason": _reason(report)}
        with open(os.environ["SSHSM_TEST_OUTCOMES"], "a", encoding="utf-8") as file:
            print(json.dumps(outcome), file=file)


def _reason(report):
    """The last line that says why, of a failure or a skip."""
    if report.passed:
        return ""
    if report.skipped:
        return str(report.longrepr[2])
    crash = getattr(report.longrepr, "reprcrash", None)
    return (crash.message if crash else str(report.longrepr)).strip().partition("\n")[0]
