"""What is drawn by lot in a life of a rollout."""

from hypothesis import strategies as st

from tests.promises.live_world import HOUR, MINUTE, PEOPLE, SECOND, SITES

VERSIONS = ("v1", "v2")
GOOD, BAD = "good", "bad"
spans = st.sampled_from([SECOND, MINUTE, 12 * MINUTE, HOUR, 7 * HOUR, 26 * HOUR, 72 * HOUR])
sites = st.sampled_from([("s0",), ("s1",), SITES])
versions = st.sampled_from(["v1", "v1", "v1", "v2"])
replicas = st.sampled_from([0, 1])
people = st.sampled_from(PEOPLE)
