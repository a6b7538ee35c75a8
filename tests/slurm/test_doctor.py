"""`hpcframe doctor --nodes` on the nodes of a real job."""

import sys

DOCTOR = (sys.executable, "-c", "from hpcframe.cli import main; main()", "doctor", "--nodes")


def test_every_node_of_a_job_answers(cluster, tmp_path):
    command = ("salloc", "--nodes=3", "--ntasks-per-node=2", "--quiet")
    done = cluster.run(*command, *DOCTOR, cwd=tmp_path, limit=300)
    assert "all 3 nodes: 3." in done.stdout  # Python
    assert f"all 3 nodes: {tmp_path}, " in done.stdout  # the current folder
    assert "all 3 nodes: hardware threads " in done.stdout  # the binding of a task on each
    assert "no answer" not in done.stdout
    assert "3 node(s): 0 differ, 0 failed of " in done.stdout
