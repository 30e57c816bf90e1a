"""What `make bench` measures of the instruments."""

from __future__ import annotations

from benchmarks.instruments import decoding, many

SHORT = (decoding.ppk2_samples_a_second, decoding.pmd, decoding.lines, many.punctuality)
