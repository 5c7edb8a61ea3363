from hypothesis import given, strategies as st

from spikewatch.recorder import WRITE_EVERY_S, WRITER_SHARE, rest_after


def test_the_writer_rests_longer_after_a_dear_write():
    assert rest_after(0.0) == 0.5
    assert rest_after(0.007) == 0.7
    assert rest_after(3.0) == 0.9


@given(st.floats(0, 10))
def test_between_its_bounds_the_writer_takes_one_percent_of_a_core(spent_s):
    rest_s = rest_after(spent_s)
    assert WRITE_EVERY_S[0] <= rest_s <= WRITE_EVERY_S[1]
    if rest_s < WRITE_EVERY_S[1]:
        assert spent_s <= WRITER_SHARE * rest_s * (1 + 1e-9)
