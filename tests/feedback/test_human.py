"""Human labels: nothing is learnt from that only its giver has seen, and nothing disappears without a reason."""

from dataclasses import replace

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from rlaif_ray.core import Opinion
from rlaif_ray.data.lake import Lake
from rlaif_ray.errors import DataError, MissingDataError
from rlaif_ray.feedback.human import (
    HUMAN_SCHEMA,
    REVIEW_SCHEMA,
    HumanLabel,
    Review,
    labels_of_arrow,
    labels_to_arrow,
    preferences_of,
    released,
    reviews_of_arrow,
    reviews_to_arrow,
)

AS_OF = np.datetime64("2020-01-02T21:00", "us")
A, B = (Opinion(author, AS_OF, "X", 5, 0.6, (), "", "question") for author in "ab")
OPINIONS = {"a1": A, "b1": B}
LATER = AS_OF + np.timedelta64(30, "D")


def day(n: int) -> np.datetime64:
    return AS_OF + np.timedelta64(n, "D")


def label(given: int = 1, by: str = "ann", note: str = "") -> HumanLabel:
    return HumanLabel(day(given), by, "form", "X", AS_OF, "question", "a1", "b1", note)


def review(of: HumanLabel, at: int = 2, by: str = "bob", verdict: str = "accept", reason: str = "") -> Review:
    return Review(of.id, day(at), by, verdict, reason)  # pyright: ignore[reportArgumentType]


def test_a_label_leaves_the_quarantine_when_somebody_else_accepts_it_and_counts_from_then() -> None:
    given = label()
    free = released([given], [review(given, at=5)], as_of=LATER)
    (told,) = preferences_of(free.labels, OPINIONS)
    assert (told.chosen, told.rejected, told.judge, told.closed_at) == (A, B, "human:ann", day(5))
    assert (told.symbol, told.as_of, told.prompt_hash) == ("X", AS_OF, "question") and told.margin == 1.0
    assert not free.held and not free.ignored


def test_nobody_releases_their_own_label() -> None:
    given = label(by="ann")
    for same in ("ann", "Ann ", "ANN"):
        own = review(given, by=same)
        free = released([given], [own], as_of=LATER)
        assert not free.labels and free.held == {given.id: "nobody else has reviewed it"}
        assert "somebody else" in free.ignored[own.id]


def test_the_last_review_counts() -> None:
    given = label()
    accepted, doubted = review(given, at=2), review(given, at=4, verdict="reject", reason="read the wrong filing")
    assert released([given], [doubted, accepted], as_of=LATER).held == {given.id: "rejected by bob: read the wrong filing"}
    again = review(given, at=6, by="eve")
    (free,) = released([given], [again, doubted, accepted], as_of=LATER).labels
    assert free.usable_from == day(6) and free.review.by == "eve"
    both = [review(given, at=2, by="eve", verdict="reject"), review(given, at=2)]
    assert "no reason given" in released([given], both, as_of=LATER).held[given.id]  # at one moment, the doubt is the last


def test_what_is_said_later_changes_nothing_that_was_released_before() -> None:
    """The law: a fit that ends on day 3 has the same labels whatever is given or reviewed after it."""
    one, two, three = label(note="1"), label(by="eve", note="2"), label(given=5, by="cat", note="3")
    reviews = [review(one, at=2), review(one, at=4, verdict="reject"), review(two, at=4), review(three, at=6)]
    then = released([one, two], reviews[:1], as_of=day(3))
    now = released([one, two, three], reviews, as_of=day(3))
    assert then.labels == now.labels and [r.label for r in now.labels] == [one]
    assert now.held == {two.id: "nobody else has reviewed it", three.id: f"given at {day(5)}, after {day(3)}"}
    assert set(now.ignored) == {r.id for r in reviews[1:]}
    assert [r.label for r in released([one, two, three], reviews, as_of=LATER).labels] == [two, three]


def test_of_what_one_person_said_of_two_opinions_only_the_last_counts() -> None:
    """Whichever they prefer now, and whoever has looked at it. What was said earlier is kept, with what took its place."""
    first, other = label(given=1), label(given=1, by="eve")
    turned = replace(label(given=5, by=" Ann"), chosen="b1", rejected="a1")
    reviews = [review(first, at=2), review(other, at=2)]
    before = released([first, other, turned], reviews, as_of=day(4))  # nobody knows yet that she will
    assert {r.label for r in before.labels} == {first, other}
    after = released([first, other, turned], reviews, as_of=day(6))
    assert [r.label for r in after.labels] == [other]
    assert after.held[first.id] == f"superseded by {turned.id}, given by  Ann at {day(5)}"
    assert after.held[turned.id] == "nobody else has reviewed it"
    (told,) = [r for r in released([turned, other, first], [*reviews, review(turned, at=7)], as_of=LATER).labels if r.label == turned]
    assert preferences_of([told], OPINIONS)[0].chosen == B
    elsewhere = replace(label(given=5), rejected="c1")  # of another two opinions: both count
    both = released([first, elsewhere], [review(first), review(elsewhere, at=6)], as_of=LATER)
    assert len(both.labels) == 2 and not both.held


def test_every_label_and_review_is_somewhere() -> None:
    """Over random quarantines: a label is released or held, a review that does not count says why."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        labels = [label(int(rng.integers(0, 5)), str(rng.choice(["ann", "eve", "cat"])), str(k)) for k in range(6)]
        reviews = [
            review(labels[rng.integers(6)], int(rng.integers(0, 9)), str(rng.choice(["ann", "bob"])), verdict, str(k))
            for k, verdict in enumerate(rng.choice(["accept", "reject"], 12).tolist())
        ]
        free = released(labels, reviews, as_of=day(6))
        assert {r.label.id for r in free.labels} | set(free.held) == {x.id for x in labels}
        assert len(free.labels) + len(free.held) == len(labels)
        for one in free.labels:
            counted = [r for r in reviews if r.label == one.label.id and r.id not in free.ignored]
            assert one.review in counted and one.review.verdict == "accept" and one.usable_from == max(r.at for r in counted) <= day(6)


def test_reviews_of_nothing_and_from_before_the_label_are_named() -> None:
    given = label(given=3)
    lost, early = replace(review(given), label="no such label"), review(given, at=1)
    free = released([given], [lost, early], as_of=LATER)
    assert free.ignored[lost.id] == "there is no label no such label" and "before the label was given" in free.ignored[early.id]
    assert given.id in free.held


def test_what_is_there_twice_is_refused() -> None:
    given = label()
    with pytest.raises(DataError, match=f"label {given.id} is there 2 times"):
        released([given, given], [], as_of=LATER)
    with pytest.raises(DataError, match=r"review .* is there 2 times"):
        released([given], [review(given)] * 2, as_of=LATER)


def test_labels_and_opinions_must_be_about_one_question() -> None:
    given = label()
    free = released([given], [review(given)], as_of=LATER).labels
    with pytest.raises(MissingDataError, match="by ann is about opinion b1, which is not among 1"):
        preferences_of(free, {"a1": A})
    for other in (replace(B, prompt_hash="another"), replace(B, symbol="Y"), replace(B, as_of=day(1))):
        with pytest.raises(DataError, match="expected one question"):
            preferences_of(free, OPINIONS | {"b1": other})


def test_labels_that_say_nothing_are_refused_at_the_door() -> None:
    given = label()
    for change, seen in (
        ({"by": " "}, "who gave it"), ({"channel": ""}, "where"), ({"rejected": "a1"}, "to itself"), ({"given_at": day(-1)}, "later"),
        ({"given_at": np.datetime64("NaT")}, "datetime64"), ({"as_of": "2020-01-02"}, "datetime64"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=seen):
            replace(given, **change)
    for change, seen in (({"verdict": "maybe"}, "accept, reject"), ({"by": ""}, "who"), ({"at": np.datetime64("NaT")}, "datetime64")):
        with pytest.raises(DataError, match=seen):
            replace(review(given), **change)


def test_the_same_words_have_the_same_id_in_whatever_unit_time_was_said() -> None:
    given = label()
    assert replace(given, given_at=given.given_at.astype("datetime64[ns]")).id == given.id
    assert len({given.id, label(by="eve").id, label(note="x").id, label(given=2).id}) == 4


def test_arrow_brings_back_what_it_was_given_and_tells_what_was_changed() -> None:
    labels, reviews = [label(), label(note="überlegt")], [review(label()), review(label(), verdict="reject", reason="why")]
    at_rest, reviewed = labels_to_arrow(labels), reviews_to_arrow(reviews)
    assert at_rest.schema == HUMAN_SCHEMA and reviewed.schema == REVIEW_SCHEMA
    assert labels_of_arrow(at_rest) == labels and reviews_of_arrow(reviewed) == reviews
    assert labels_of_arrow(labels_to_arrow([])) == [] and reviews_of_arrow(reviews_to_arrow([])) == []
    forged = at_rest.set_column(at_rest.schema.get_field_index("chosen"), "chosen", pa.array(["b1", "a1"]))
    with pytest.raises(DataError, match="it was changed"):
        labels_of_arrow(forged.set_column(forged.schema.get_field_index("rejected"), "rejected", pa.array(["a1", "b1"])))


def test_the_lake_keeps_both_and_gives_them_back(tmp_path) -> None:
    lake, given = Lake(str(tmp_path), "desk"), label()
    for name, rows in (("human_labels", labels_to_arrow([given])), ("human_reviews", reviews_to_arrow([review(given)]))):
        frame = pl.DataFrame(pl.from_arrow(rows))
        for _ in range(2):  # the second time nothing is new
            lake.append(name, frame, "all", revised_at=None)
    labels = labels_of_arrow(lake.read("human_labels").to_arrow())
    reviews = reviews_of_arrow(lake.read("human_reviews").to_arrow())
    assert labels == [given] and reviews == [review(given)]
    assert len(released(labels, reviews, as_of=LATER).labels) == 1
