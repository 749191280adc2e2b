"""What went wrong before and must not happen here.

A module here is named by the number of its incident.  Where the tests of a number are those
of the part that it is about, this is where they stand:

21: tests/scenarios/test_green.py, tests/runs/test_verify.py
22: tests/scenarios/test_green.py
25: tests/incidents/test_24_one_truth_for_a_number.py
26: tests/scenarios/test_green.py, tests/cli/test_terminal.py
27: tests/cli/test_exit_codes.py
28: tests/ops/test_alerts.py
31: tests/docs/test_printed_commands.py, tests/docs/test_guides.py, tests/ops/test_calendar.py
32: tests/cli/test_output.py, tests/cli/test_terminal.py
35: tests/targets/test_postgres_surroundings.py
44: tests/settings/test_every_setting_counts.py
45: tests/targets/test_postgres_surroundings.py
47: tests/cli/test_terminal.py
48: tests/targets/test_target_forms.py, tests/targets/test_postgres_surroundings.py
"""
