"""What transformers do between their products: rows, attention, embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.kernel_cases.timing import Case

HEADS, DEPTH = 12, 32
"""MiniLM's attention."""

COLUMNS = HEADS * DEPTH


def row_cases(_threads: int) -> Iterator[Case]:
    import numpy as np
    from adlik_kernels import apply_activation, layer_norm, softmax

    rng = np.random.default_rng(0)
    scale, bias = (rng.standard_normal(COLUMNS).astype(np.float32) for _ in range(2))
    for rows in (16, 128, 1024):
        x, residual = (rng.standard_normal((rows, COLUMNS)).astype(np.float32) for _ in range(2))
        wide = rng.standard_normal((rows, 4 * COLUMNS)).astype(np.float32)
        calls = {
            "layernorm": lambda x=x: layer_norm(x, scale, bias),
            "add+norm": lambda x=x, residual=residual: layer_norm(
                x, scale, bias, residual=residual
            ),
            "softmax": lambda x=x: softmax(x),
            "gelu": lambda wide=wide: apply_activation(wide, "gelu"),
        }
        peers = torch_rows(x, residual, wide, scale, bias)
        for name, call in calls.items():
            yield Case(f"{name} {rows}", 0, "", {"adlik": call, **peers.get(name, {})})


def torch_rows(x, residual, wide, scale, bias) -> dict[str, dict[str, Callable[[], object]]]:
    try:
        import torch
    except ImportError:
        return {}
    functional, shape = torch.nn.functional, (x.shape[1],)
    x, residual, wide, scale, bias = map(torch.from_numpy, (x, residual, wide, scale, bias))
    calls = {
        "layernorm": lambda: functional.layer_norm(x, shape, scale, bias),
        "add+norm": lambda: functional.layer_norm(x + residual, shape, scale, bias),
        "softmax": lambda: torch.softmax(x, -1),
        "gelu": lambda: functional.gelu(wide),
    }
    return {name: {"torch": call} for name, call in calls.items()}


def attention_cases(_threads: int) -> Iterator[Case]:
    """q, k and v are thirds of one product, as they come in a model; half the cases have a mask."""
    import numpy as np
    from adlik_kernels import attention

    rng = np.random.default_rng(0)
    for batch in (1, 8):
        for tokens in (16, 64, 128, 256):
            joined = rng.standard_normal((batch, tokens, 3 * COLUMNS)).astype(np.float32)
            q, k, v = (joined[..., COLUMNS * n : COLUMNS * (n + 1)] for n in range(3))
            mask = np.zeros((batch, tokens), np.float32)
            mask[:, -tokens // 4 :] = -np.inf
            for name, given in (("", None), (" mask", mask)):
                calls = {
                    "adlik": lambda parts=(q, k, v), given=given: attention(*parts, HEADS, given),
                    **torch_attention((q, k, v), given),
                }
                check_close(calls)
                operations = 4 * batch * tokens * tokens * COLUMNS
                yield Case(f"{batch}x{tokens}{name}", operations, "fp32", calls)


def torch_attention(parts, mask) -> dict[str, Callable[[], object]]:
    """The result's heads are brought together, as the next product needs them."""
    try:
        import torch
    except ImportError:
        return {}
    compute = torch.nn.functional.scaled_dot_product_attention
    batch, tokens, columns = parts[0].shape
    heads = [
        torch.from_numpy(part).view(batch, tokens, HEADS, DEPTH).transpose(1, 2) for part in parts
    ]
    hidden = None if mask is None else torch.from_numpy(mask)[:, None, None]

    def call():
        result = compute(*heads, attn_mask=hidden)
        return result.transpose(1, 2).reshape(batch, tokens, columns)

    return {"torch": call}


def check_close(calls: dict[str, Callable[[], object]]) -> None:
    """Stops the benchmark if contenders compute different things."""
    import numpy as np

    got = np.asarray(calls["adlik"]())
    for call in calls.values():
        np.testing.assert_allclose(got, np.asarray(call()), rtol=1e-3, atol=1e-4)


def embedding_cases(_threads: int) -> Iterator[Case]:
    """Tables that fit a cache and one that does not; words of sentences and features of users."""
    import numpy as np
    from adlik_kernels import embedding, embedding_bag

    rng = np.random.default_rng(0)
    for rows, columns, bags, size in (
        *((1_000, 64, 64, 20), (1_000, 64, 512, 20)),
        *((100_000, 128, 256, 40), (1_000_000, 64, 512, 50)),
    ):
        table = rng.standard_normal((rows, columns), np.float32)
        indices = rng.integers(0, rows, bags * size)
        offsets = np.arange(0, bags * size, size)
        given = (table, indices, offsets)
        for mode in ("sum", "mean", "max"):
            calls = {
                "adlik": lambda given=given, mode=mode: embedding_bag(*given, mode=mode),
                **torch_bags(*given, mode),
            }
            check_close(calls)
            yield Case(f"{mode} {rows}x{columns} {bags}x{size}", 0, "", calls)
    table, indices = (
        rng.standard_normal((30_522, COLUMNS), np.float32),
        rng.integers(0, 30_522, 1024),
    )
    calls = {
        "adlik": lambda: embedding(table, indices),
        "numpy": lambda: table[indices],
        **torch_lookup(table, indices),
    }
    check_close(calls)
    yield Case("1024 words", 0, "", calls)


def torch_bags(table, indices, offsets, mode: str) -> dict[str, Callable[[], object]]:
    try:
        import torch
    except ImportError:
        return {}
    table, indices, offsets = map(torch.from_numpy, (table, indices, offsets))
    bag = torch.nn.functional.embedding_bag
    return {"torch": lambda: bag(indices, table, offsets, mode=mode)}


def torch_lookup(table, indices) -> dict[str, Callable[[], object]]:
    try:
        import torch
    except ImportError:
        return {}
    table, indices = torch.from_numpy(table), torch.from_numpy(indices)
    return {"torch": lambda: torch.nn.functional.embedding(indices, table)}
