import subprocess
import sys

import numpy as np

PRINT = "from sonant.bench.rivals.peak_memory import peak_megabytes; print(peak_megabytes())"


def test_a_peak_is_that_of_the_process_and_not_of_the_one_that_started_it():
    block = np.ones(300 << 17)  # 300 MiB here
    done = subprocess.run([sys.executable, "-c", PRINT], check=True, capture_output=True, text=True)
    assert 5 < float(done.stdout) < 300
    assert block.sum() > 0


def test_a_peak_counts_what_was_given_back():
    made = "import numpy as np; x = np.ones(200 << 17); del x; " + PRINT
    done = subprocess.run([sys.executable, "-c", made], check=True, capture_output=True, text=True)
    assert float(done.stdout) > 200
