from spikewatch.app.layer_lines import CARDS
from spikewatch.metrics import TABLES


def test_every_line_of_a_layer_is_a_metric_of_the_catalogue():
    lanes = [lane for card in CARDS for lane in card.lanes]
    unknown = [(t, m) for t, m, _ in lanes if m not in {x.name for x in TABLES[t].metrics}]
    assert unknown == []
    assert len({card.key for card in CARDS}) == len(CARDS)
