"""Rows of tables, made as readers make them."""

import subprocess
import sys


def test_a_row_is_made_in_a_process_that_has_opened_no_session() -> None:
    code = "from store.tables import ProfileRow; print(ProfileRow.model_construct(user_id='ann').user_id)"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (made.stdout, made.returncode) == ("ann\n", 0), made.stderr
