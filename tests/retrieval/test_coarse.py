"""Float search and coarse-to-fine search against the definitions, written out for one query at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caffe2torch.errors import RetrievalError, UsageError
from caffe2torch.retrieval import fine
from caffe2torch.retrieval.coarse import CoarseToFine
from caffe2torch.retrieval.codes import pack
from caffe2torch.retrieval.features import Features
from caffe2torch.retrieval.fine import FloatSearch, recall
from caffe2torch.retrieval.index import Index

BITS = 12
RNG = np.random.RandomState(7)


def naive_distances(features: np.ndarray, query: np.ndarray, metric: str) -> np.ndarray:
    """In the longest floats there are, each row for itself."""
    x, q = features.astype(np.longdouble), query.astype(np.longdouble)
    if metric == "euclidean":
        return np.sqrt(((x - q) ** 2).sum(1))
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = (x * q).sum(1) / np.sqrt((x * x).sum(1) * (q * q).sum())
    return np.where(np.isnan(cosine), np.inf, 1 - cosine)


def naive_order(distances: np.ndarray) -> list[int]:
    return sorted(range(len(distances)), key=lambda row: (distances[row], row))


def naive_candidates(codes: np.ndarray, query: np.ndarray, k: int, candidates: int, radius: int | None) -> list[int]:
    hamming = (codes != query).sum(1)
    order = naive_order(hamming)[:candidates]
    if radius is None:
        return order
    return order[: max(k, sum(hamming[row] <= radius for row in order))]


def clustered(count: int, width: int, seed: int = 0) -> np.ndarray:
    """Positive features around a few centres, as those behind a ReLU are."""
    rng = np.random.RandomState(seed)
    centres = 3 * np.maximum(rng.standard_normal((5, width)), 0)
    noise = rng.standard_normal((count, width))
    return np.maximum(centres[rng.randint(5, size=count)] + noise, 0).astype(np.float32)


def tied(count: int, width: int, seed: int = 0) -> np.ndarray:
    """Small whole numbers: exact in any float, full of equal rows and equal distances."""
    return np.random.RandomState(seed).randint(1, 3, size=(count, width)).astype(np.float32)


@pytest.mark.parametrize("metric", fine.METRICS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("k", [1, 10, 200])
def test_exhaustive_search_equals_the_definition(metric: str, dtype: type, k: int) -> None:
    data = clustered(200, 33).astype(dtype)
    queries = clustered(20, 33, seed=1)
    hits = FloatSearch(Features(data), metric=metric).search(queries, k)
    assert hits.rows.dtype == np.int64
    assert hits.distances.dtype == np.float64
    for query, rows, distances in zip(queries, hits.rows, hits.distances, strict=True):
        expected = naive_distances(data, query, metric)
        assert rows.tolist() == naive_order(expected)[:k]
        np.testing.assert_allclose(distances, expected[rows].astype(np.float64), rtol=1e-13, atol=1e-15)


def test_ties_stand_in_list_order() -> None:
    data, queries = tied(300, 4), tied(12, 4, seed=1)
    for k in (1, 37, 300):
        hits = FloatSearch(Features(data)).search(queries, k)
        for query, rows in zip(queries, hits.rows, strict=True):
            squares = ((data - query) ** 2).sum(1).astype(int)
            assert rows.tolist() == naive_order(squares)[:k]


@pytest.mark.parametrize("metric", fine.METRICS)
def test_equal_features_are_at_distance_0_in_list_order(metric: str) -> None:
    data = clustered(500, 257)
    copies = [3, 77, 130, 131, 498]
    data[copies] = data[3]
    hits = FloatSearch(Features(data), metric=metric).search(data[3:4], 6)
    assert hits.rows[0, :5].tolist() == copies
    assert hits.distances[0, :5].tolist() == [0.0] * 5
    assert hits.distances[0, 5] > 0


@pytest.mark.parametrize("metric", fine.METRICS)
@pytest.mark.parametrize("offset", [1e3, 1e6])
def test_differences_lost_in_float32_products_are_found(metric: str, offset: float) -> None:
    data = (np.float32(offset) + RNG.randint(-9, 10, size=(300, 64))).astype(np.float32)
    queries = (np.float32(offset) + RNG.randint(-9, 10, size=(5, 64))).astype(np.float32)
    hits = FloatSearch(Features(data), metric=metric).search(queries, 30)
    for query, rows in zip(queries, hits.rows, strict=True):
        expected = naive_distances(data, query, metric)
        if metric == "cosine":  # the order of numbers near 1e-12 is that of the definition by differences
            x, q = data.astype(np.longdouble), query.astype(np.longdouble)
            x, q = x / np.sqrt((x * x).sum(1))[:, None], q / np.sqrt((q * q).sum())
            expected = ((x - q) ** 2).sum(1) / 2
        np.testing.assert_allclose(expected[rows].astype(float), np.sort(expected)[:30].astype(float), rtol=1e-5)


@pytest.mark.parametrize("metric", fine.METRICS)
@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e-12, 1e12, 1e22, 1e36])
def test_tiny_and_huge_features(metric: str, scale: float) -> None:
    data, queries = (clustered(60, 9, seed) * scale for seed in (0, 1))
    data, queries = data.astype(np.float32), queries.astype(np.float32)[:5]
    hits = FloatSearch(Features(data), metric=metric).search(queries, 60)
    for query, rows, distances in zip(queries, hits.rows, hits.distances, strict=True):
        expected = naive_distances(data, query, metric)
        assert np.isfinite(distances).all()
        np.testing.assert_allclose(distances, np.sort(expected).astype(float), rtol=1e-10, atol=1e-15 * distances[-1])
        np.testing.assert_allclose(distances, expected[rows].astype(float), rtol=1e-10, atol=1e-15 * distances[-1])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_bounds_contain_the_exact_value(data: st.DataObject) -> None:
    width = data.draw(st.sampled_from([1, 2, 5, 64, 1000]))
    scale = 10.0 ** data.draw(st.integers(-20, 15))
    shift = data.draw(st.sampled_from([0, 1, 1e4]))
    rng = np.random.RandomState(data.draw(st.integers(0, 1000)))
    metric = data.draw(st.sampled_from(fine.METRICS))
    values = ((rng.standard_normal((40, width)) + shift) * scale).astype(np.float32)
    search = FloatSearch(Features(values), metric=metric)
    search.features.check()
    rows = np.arange(40)
    (query,) = search.prepare(values[:1] + scale * 10.0 ** rng.randint(-9, 1))
    low, high = search._bounds(query, search.features.squares(rows), (values @ query.rounded).astype(np.float64))
    exact = search._exact(query, rows, search.buffer())
    exact = exact**2 if metric == "euclidean" else exact
    assert (low <= exact).all()
    assert (exact <= high).all()


def test_blocks_of_rows_and_queries_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    data, queries = tied(230, 5), tied(17, 5, seed=1)
    whole = FloatSearch(Features(data)).search(queries, 50)
    monkeypatch.setattr("caffe2torch.retrieval.features.BLOCK", 5 * 4 * 7)
    monkeypatch.setattr("caffe2torch.retrieval.features.PIECE", 5 * 4 * 3)
    monkeypatch.setattr(fine, "GATHERED", 5 * 4 * 4)
    monkeypatch.setattr(fine, "PRODUCTS", 4 * 230 * 3)
    monkeypatch.setattr(fine, "TASK", 2)
    pieces = FloatSearch(Features(data)).search(queries, 50)
    np.testing.assert_array_equal(pieces.rows, whole.rows)
    np.testing.assert_array_equal(pieces.distances, whole.distances)


def test_rows_of_zeros_come_last_by_cosine_and_are_ordinary_by_euclidean() -> None:
    data = clustered(30, 8)
    data[[4, 20]] = 0
    hits = FloatSearch(Features(data), metric="cosine").search(data[:3], 30)
    assert hits.rows[:, -2:].tolist() == [[4, 20]] * 3
    assert np.isinf(hits.distances[:, -2:]).all()
    assert np.isfinite(hits.distances[:, :-2]).all()
    assert FloatSearch(Features(data)).search(np.zeros((1, 8)), 2).rows.tolist() == [[4, 20]]


@pytest.mark.parametrize("length", [1e-150, 1e-170])
def test_rows_too_short_to_have_a_direction_displace_no_other(length: float) -> None:
    data = clustered(30, 8).astype(np.float64)
    short = [4, 20, 21]
    data[short] = length * data[0]
    assert FloatSearch(Features(data), metric="cosine").search(data[:1], 30).rows[0, -3:].tolist() == short
    rows = FloatSearch(Features(data), metric="cosine").search(data[:1], 27).rows[0].tolist()
    assert not set(rows) & set(short)


@pytest.mark.parametrize("zero", [0.0, 1e-170], ids=["zero", "too short to have a direction"])
def test_a_query_of_zeros_has_no_cosine(zero: float) -> None:
    queries = clustered(3, 8).astype(np.float64)
    queries[1] = zero
    with pytest.raises(RetrievalError, match="query features: row 1 is all zeros, which has no direction"):
        FloatSearch(Features(clustered(30, 8)), metric="cosine").search(queries, 2)


@pytest.mark.parametrize("metric", fine.METRICS)
def test_a_row_without_numbers_is_never_ranked(metric: str) -> None:
    data = clustered(30, 8)
    data[11, 3] = np.nan
    with pytest.raises(RetrievalError, match="fc7: row 11 holds nan at value 3"):
        FloatSearch(Features(data, source="fc7"), metric=metric).search(data[:2], 3)


@pytest.mark.parametrize(
    "queries, message",
    [
        (np.zeros((2, 9)), "query features have 9 values, those in fc7 8: they were made by different nets"),
        (np.zeros(8), r"query features are a matrix \(queries, values\) of floats, not float64 \(8,\)"),
        (np.full((2, 8), np.nan), "query features: row 0 holds nan at value 0 and 7 more"),
        (np.vstack([np.zeros((1500, 8)), np.full((1, 8), np.inf)]), "query features: row 1500 holds inf at value 0"),
        (np.full((2, 8), 1e200), r"query features: row 0 holds 1e\+200, too large"),
        (np.full((2, 8), "x"), "query features are a matrix"),
    ],
    ids=["width", "1-D", "nan", "late", "huge", "text"],
)
def test_queries_that_do_not_fit(queries: np.ndarray, message: str) -> None:
    with pytest.raises(RetrievalError, match=message):
        FloatSearch(Features(clustered(30, 8), source="fc7")).search(queries, 3)


def test_k_and_metric() -> None:
    search = FloatSearch(Features(clustered(30, 8)))
    with pytest.raises(RetrievalError, match="k is 31, but there are only 30 rows of features"):
        search.search(np.zeros((1, 8)), 31)
    with pytest.raises(UsageError, match="k is 0"):
        search.search(np.zeros((1, 8)), 0)
    with pytest.raises(UsageError, match="metric 'manhattan': choose one of euclidean, cosine"):
        FloatSearch(search.features, metric="manhattan")


def test_no_queries_no_results() -> None:
    assert FloatSearch(Features(clustered(30, 8))).search(np.zeros((0, 8)), 3).rows.shape == (0, 3)


# Coarse to fine


def hashed(features: np.ndarray) -> np.ndarray:
    """Bits that agree for near features: signs of random projections."""
    planes = np.random.RandomState(3).standard_normal((features.shape[1], BITS))
    return (features - features.mean(0)) @ planes > 0


DATA, QUERIES = clustered(400, 16), clustered(25, 16, seed=0)[:25] + np.float32(0.01)
CODES, QUERY_CODES = hashed(DATA), hashed(QUERIES)


def two_stage(**options: object) -> CoarseToFine:
    return CoarseToFine(Index.from_codes(pack(CODES), BITS), DATA, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("metric", fine.METRICS)
@pytest.mark.parametrize("radius", [None, 0, 2, BITS])
@pytest.mark.parametrize("candidates, k", [(1, 1), (60, 10), (60, 60), (400, 400), (5000, 9)])
def test_coarse_to_fine_equals_the_definition(metric: str, radius: int | None, candidates: int, k: int) -> None:
    hits = two_stage(metric=metric, radius=radius, candidates=candidates).search(pack(QUERY_CODES), QUERIES, k)
    assert (hits.ids.dtype, hits.hamming.dtype, hits.distances.dtype) == (np.int64, np.int32, np.float64)
    for number, (code, query) in enumerate(zip(QUERY_CODES, QUERIES, strict=True)):
        pool = np.array(sorted(naive_candidates(CODES, code, k, candidates, radius)))
        distances = naive_distances(DATA[pool], query, metric)
        expected = pool[naive_order(distances)[:k]]
        assert hits.ids[number].tolist() == expected.tolist()
        assert hits.hamming[number].tolist() == (CODES[expected] != code).sum(1).tolist()
        np.testing.assert_allclose(hits.distances[number], np.sort(distances)[:k].astype(float), rtol=1e-12, atol=1e-15)


def test_ties_of_codes_and_features_stand_in_list_order() -> None:
    data = tied(300, 3)
    codes = np.random.RandomState(5).rand(300, BITS) > 0.9
    search = CoarseToFine(Index.from_codes(pack(codes), BITS), data, candidates=80)
    hits = search.search(pack(codes[:20]), data[:20], 50)
    for number in range(20):
        pool = naive_candidates(codes, codes[number], 50, 80, None)
        squares = {row: int(((data[row] - data[number]) ** 2).sum()) for row in pool}
        assert hits.ids[number].tolist() == sorted(pool, key=lambda row: (squares[row], row))[:50]


def test_an_empty_radius_is_filled_up_and_says_so() -> None:
    codes = np.zeros((50, BITS), np.bool_)
    query = np.ones((1, BITS), np.bool_)
    search = CoarseToFine(Index.from_codes(pack(codes), BITS), DATA[:50], radius=2, candidates=20)
    hits = search.search(pack(query), DATA[7:8], 5)
    assert sorted(hits.ids[0].tolist()) == [0, 1, 2, 3, 4]  # the first five of the Hamming ranking, not all 20
    assert (hits.hamming == BITS).all()


def test_as_many_candidates_as_codes_is_exhaustive_search() -> None:
    search = two_stage(candidates=400)
    exhaustive = search.fine.search(QUERIES, 30)
    hits = search.search(pack(QUERY_CODES), QUERIES, 30)
    np.testing.assert_array_equal(hits.ids, exhaustive.rows)
    np.testing.assert_array_equal(hits.distances, exhaustive.distances)
    assert search.recall(pack(QUERY_CODES), QUERIES, 30) == 1


def test_recall_against_exhaustive_search() -> None:
    search = two_stage(candidates=40)
    expected = []
    for code, query in zip(QUERY_CODES, QUERIES, strict=True):
        nearest = naive_order(naive_distances(DATA, query, "euclidean"))[:20]
        pool = naive_candidates(CODES, code, 20, 40, None)
        found = sorted(pool, key=lambda row: float(naive_distances(DATA[row : row + 1], query, "euclidean")[0]))[:20]
        expected.append(len(set(nearest) & set(found)) / 20)
    assert 0.2 < np.mean(expected) < 1
    assert search.recall(pack(QUERY_CODES), QUERIES, 20) == pytest.approx(np.mean(expected), abs=1e-15)


def test_recall_of_two_rankings() -> None:
    expected = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
    assert recall(np.array([[4, 3, 9, 1], [1, 2, 3, 4]]), expected) == 3 / 8
    with pytest.raises(RetrievalError, match="not for the same queries"):
        recall(np.array([[1, 2]]), expected)


def test_more_candidates_find_no_less() -> None:
    rates = [two_stage(candidates=n).recall(pack(QUERY_CODES), QUERIES, 10) for n in (10, 40, 160, 400)]
    assert rates == sorted(rates)


def test_blocks_of_queries_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = two_stage(candidates=60).search(pack(QUERY_CODES), QUERIES, 10)
    monkeypatch.setattr("caffe2torch.retrieval.coarse.POOLED", 130)
    monkeypatch.setattr("caffe2torch.retrieval.coarse.TASK", 2)
    monkeypatch.setattr(fine, "GATHERED", 16 * 4 * 7)
    pieces = two_stage(candidates=60).search(pack(QUERY_CODES), QUERIES, 10)
    for name in ("ids", "hamming", "distances"):
        np.testing.assert_array_equal(getattr(pieces, name), getattr(whole, name))


def test_ids_tell_which_row_belongs_to_which_code() -> None:
    ids = np.random.RandomState(2).permutation(10**6)[:400]
    shuffled = np.random.RandomState(4).permutation(400)
    search = CoarseToFine(
        Index.from_codes(pack(CODES), BITS, ids=ids), DATA[shuffled], ids=ids[shuffled], candidates=60
    )
    plain = two_stage(candidates=60).search(pack(QUERY_CODES), QUERIES, 10)
    hits = search.search(pack(QUERY_CODES), QUERIES, 10)
    np.testing.assert_array_equal(hits.ids, ids[plain.ids])
    np.testing.assert_array_equal(hits.hamming, plain.hamming)
    assert search.recall(pack(QUERY_CODES), QUERIES, 10) == two_stage(candidates=60).recall(
        pack(QUERY_CODES), QUERIES, 10
    )


def test_a_code_without_features_is_refused() -> None:
    index = Index.from_codes(pack(CODES), BITS, ids=np.arange(400) + 7)
    with pytest.raises(RetrievalError, match=r"no row of features for the code 4.*; give ids"):
        CoarseToFine(index, DATA).search(pack(QUERY_CODES), QUERIES, 400)
    with pytest.raises(RetrievalError, match="no row of features for the code 7"):
        CoarseToFine(index, DATA, ids=np.arange(400) + 8, candidates=400).search(pack(QUERY_CODES), QUERIES, 400)


@pytest.mark.parametrize(
    "ids, message",
    [
        (np.arange(399), r"400 rows of features, but ids are int64 \(399,\)"),
        (np.arange(400) / 2, r"ids are float64 \(400,\); each row needs a whole number"),
        (np.arange(400) // 2, "the id 0 stands at two rows"),
    ],
    ids=["short", "float", "twice"],
)
def test_ids_that_do_not_fit(ids: np.ndarray, message: str) -> None:
    with pytest.raises(RetrievalError, match=message):
        two_stage(ids=ids)


def test_features_from_a_file(tmp_path: Path) -> None:
    np.save(tmp_path / "fc7.npy", DATA)
    index = Index.from_codes(pack(CODES), BITS)
    hits = CoarseToFine(index, tmp_path / "fc7.npy").search(pack(QUERY_CODES), QUERIES, 10)
    np.testing.assert_array_equal(hits.ids, two_stage().search(pack(QUERY_CODES), QUERIES, 10).ids)
    np.save(tmp_path / "fc7.npy", DATA[:399])
    with pytest.raises(RetrievalError, match=r"fc7\.npy: 399 rows of features for 400 codes"):
        CoarseToFine(index, str(tmp_path / "fc7.npy"))


def test_features_of_codes_that_were_removed_may_stay() -> None:
    index = Index.from_codes(pack(CODES[1::2]), BITS, ids=np.arange(1, 400, 2))
    with pytest.raises(RetrievalError, match=r"400 rows of features for 200 codes; if codes were removed .* give ids"):
        CoarseToFine(index, DATA)
    hits = CoarseToFine(index, DATA, ids=np.arange(400), candidates=200).search(pack(QUERY_CODES), QUERIES, 200)
    for query, found in zip(QUERIES, hits.ids, strict=True):
        assert found.tolist() == [2 * row + 1 for row in naive_order(naive_distances(DATA[1::2], query, "euclidean"))]


def test_a_candidate_without_numbers_is_named() -> None:
    data = DATA.copy()
    data[13, 4] = np.inf
    search = CoarseToFine(Index.from_codes(pack(CODES), BITS), data, candidates=400)
    with pytest.raises(RetrievalError, match="row 13 holds inf at value 4; features have to be finite numbers"):
        search.search(pack(CODES[13:14]), DATA[13:14], 1)


def test_queries_and_k_that_do_not_fit() -> None:
    search = two_stage(candidates=20)
    with pytest.raises(RetrievalError, match="24 query codes but 25 query features"):
        search.search(pack(QUERY_CODES[:24]), QUERIES, 5)
    with pytest.raises(RetrievalError, match="k is 21, of 20 candidates: raise candidates to 21 at least"):
        search.search(pack(QUERY_CODES), QUERIES, 21)
    with pytest.raises(RetrievalError, match="k is 401, but there are only 400 codes"):
        search.search(pack(QUERY_CODES), QUERIES, 401)
    with pytest.raises(UsageError, match="k is 0"):
        search.search(pack(QUERY_CODES), QUERIES, 0)
    with pytest.raises(UsageError, match="candidates = 0"):
        two_stage(candidates=0)
    with pytest.raises(UsageError, match="radius = -1"):
        two_stage(radius=-1)
