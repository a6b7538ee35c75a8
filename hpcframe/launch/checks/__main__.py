"""`python -m hpcframe.launch.checks TITLE`: one check, its finding printed as a line of JSON."""

import dataclasses
import json
import sys

from hpcframe.launch.checks import CHECKS

checks = {check.title: check for check in CHECKS}
if len(sys.argv) != 2 or sys.argv[1] not in checks:
    sys.exit(f"usage: python -m hpcframe.launch.checks TITLE, which is one of: {', '.join(checks)}")
print(json.dumps(dataclasses.asdict(checks[sys.argv[1]].look())), flush=True)
