"""The banks of notebook 06: wrong answers as code, each with words of the message it must get."""

from labkit.exercises.ex05_wrong import _bank, _expressions

SINGULAR_VALUES = _expressions(
    "def f(A, B, s):\n"
    "    A, B, of = A.double(), B.double(), torch.linalg.svdvals\n"
    "    (_, u), (_, l) = torch.linalg.qr(B), torch.linalg.qr(A.T)\n"
    "    right = of(s * u @ l.T)",
    ("values of A", "values of A alone; the update", "of(A)"),
    ("values of B", "values of B alone; the update", "of(B)"),
    ("values of A, scaled", "values of A alone, times the scale", "s * of(A)"),
    ("values of B, scaled", "values of B alone, times the scale", "s * of(B)"),
    ("product of values", "their directions differ", "s * of(A) * of(B)"),
    ("no scale", "the scale is missing", "of(u @ l.T)"),
    ("scale twice", "the scale comes twice", "s * right"),
    ("squares", "those are eigenvalues", "right.square()"),
    ("smallest first", "largest first", "right.flip(0)"),
    ("shares of the sum", "shares of their sum", "right / right.sum()"),
    ("shares of the largest", "shares of the largest", "right / right[0]"),
    ("no transpose", "the second factor is missing its transpose", "of(s * u @ l)"),
    ("transposes the wrong one", "the wrong factor is transposed", "of(s * u.T @ l)"),
    ("a diagonal", "a diagonal holds no singular values", "s * (u @ l.T).diagonal().abs().sort(descending=True).values"),
    ("in float32", "work in float64", "right.float()"),
    ("all values", "the others are zero", "of(s * B @ A)"),
    ("forms B A", "it forms a matrix as large as W", "of(s * B @ A)[: len(A)]"),
)  # fmt: skip

EFFECTIVE_RANK = _expressions(
    "def f(v):\n"
    "    h = lambda x: -torch.special.xlogy(x, x).sum()\n"
    "    p, q = v / v.sum().clamp(min=1e-300), v.square() / v.square().sum().clamp(min=1e-300)",
    ("entropy", "that is the entropy; its", "float(h(p))"),
    ("power of two", "in nats (natural logarithm)", "float(2 ** h(p))"),
    ("bits in exp", "mixes bits and nats", "float((h(p) / torch.tensor(2.0).log()).exp())"),
    ("of the squares", "those shares are of the squares", "float(h(q).exp())"),
    ("entropy of the squares", "the entropy of the squares", "float(h(q))"),
    ("sign", "MINUS the sum", "float((-h(p)).exp())"),
    ("share of the largest", "a share of the largest entropy", "float(h(p) / torch.tensor(float(len(v))).double().log())"),
    ("participation", "that is the participation ratio", "float(1 / p.square().sum())"),
    ("participation of energies", "participation ratio of energies", "float(1 / q.square().sum())"),
    ("stable rank", "that is the stable rank", "float(v.square().sum() / v.max() ** 2)"),
    ("sum over largest", "the sum over the largest", "float(v.sum() / v.max())"),
    ("rank", "counts a small value as a large one", "int((v > 0).sum())"),
    ("no shares", "divide by the sum first", "float(h(v).exp())"),
    ("nan at zero", "0 log 0 is 0", "float((-(p * p.log()).sum()).exp())"),
    ("one at zero", "of a fresh adapter", "float(h(p).exp())"),
    ("shares", "is one number", "p"),
)  # fmt: skip

ENERGY_RANK = _expressions(
    "def f(v, share=0.9):\n"
    "    q = v.square().cumsum(0)\n"
    "    reach = lambda sums: int((sums < share * sums[-1] * (1 - 1e-12)).sum()) + 1",
    ("no squares", "energy is the sum of SQUARES", "reach(v.cumsum(0)) if q[-1] else 0"),
    ("one too few", "one direction too few", "reach(q) - 1 if q[-1] else 0"),
    ("one too many", "one direction too many", "int((q <= share * q[-1]).sum()) + 1"),
    ("from the smallest", "not from the smallest", "reach(v.flip(0).square().cumsum(0)) if q[-1] else 0"),
    ("each with the largest", "that compares each value", "int((v >= share * v[0]).sum())"),
    ("always 0.9", "0.9 is only the default", "int((q < 0.9 * q[-1] - 1e-12).sum()) + 1"),
    ("all of them", "how many values there are", "len(v)"),
    ("zeros", "an update of zeros has no energy", "int((q < share * q[-1] * (1 - 1e-12)).sum()) + 1"),
    ("a share", "must be a whole number", "float(q[0] / q[-1])"),
)  # fmt: skip

OVERLAP = _expressions(
    "def f(U, V):\n"
    "    if (U.T @ U - torch.eye(U.shape[1])).abs().max() > 1e-4:\n"
    "        raise ValueError\n"
    "    M, i, j = U.T @ V, U.shape[1], V.shape[1]\n"
    "    total, k = M.square().sum(), min(U.shape[1], V.shape[1])",
    ("no division", "divide by the smaller number", "total"),
    ("divides by the larger", "divided by the larger number", "total / max(i, j)"),
    ("mean", "the mean square of all cosines", "total / (i * j)"),
    ("divides by the space", "divided by the dimension of the space", "total / len(U)"),
    ("divides by both", "by both numbers together", "total / (i + j)"),
    ("norm not squared", "the norm is squared", "total.sqrt() / k"),
    ("root", "that is the root of phi", "(total / k).sqrt()"),
    ("distance", "that is a distance", "1 - total / k"),
    ("absolute", "adds absolute cosines", "M.abs().sum() / k"),
    ("signed", "adds cosines with their signs", "M.sum() / k"),
    ("i-th with i-th", "compares the i-th with the i-th", "M.diagonal().square().sum() / k"),
    ("nearest pair", "the nearest single pair", "M.abs().amax()"),
    ("nearest partner", "may lie between several", "M.abs().amax(1).mean()"),
    ("smallest angle", "the smallest angle alone", "torch.linalg.svdvals(M)[0]"),
    ("mean cosine", "the mean cosine of the angles", "torch.linalg.svdvals(M).mean()"),
    ("cosines", "is one number, not", "M.square()"),
) + _bank(
    ("takes A and B", "must raise ValueError", "def f(U, V):\n    return float((U.T @ V).square().sum()) / min(U.shape[1], V.shape[1])"),
)  # fmt: skip

TRUNCATED = _expressions(
    "def f(A, B, s, k):\n"
    "    S = spectrum(A, B, s)\n"
    "    U, v, V = S.left[:, :k].to(A.dtype), S.values[:k].to(A.dtype), S.right[:, :k].T.to(A.dtype)\n"
    "    r = (v / s).sqrt()",
    ("first rows", "those are the first rows of A", "A[:k], B[:, :k]"),
    ("last rows", "those are the last rows of A", "A[-k:], B[:, -k:]"),
    ("longest rows", "the longest rows and columns", "(lambda i: (A[i], B[:, i]))((A.norm(dim=1) * B.norm(dim=0)).topk(k).indices)"),
    ("scaled twice", "the update is scaled twice", "v.sqrt()[:, None] * V, U * v.sqrt()"),
    ("divided twice", "divided by the scale twice", "(v.sqrt() / s)[:, None] * V, U * v.sqrt() / s"),
    ("whole value in both", "each factor has the whole value", "v[:, None] * V, U * v"),
    ("no values", "the values are missing", "V, U"),
    ("root once", "one root only", "V, U * r"),
    ("smallest", "those are the smallest values", "(lambda w: (w[:, None] * S.right[:, -k:].T.to(A.dtype), S.left[:, -k:].to(A.dtype) * w))((S.values[-k:].to(A.dtype) / s).sqrt())"),
    ("cuts A alone", "that cuts A alone", "(lambda R: (R.T, B @ A @ R))(torch.linalg.svd(A, full_matrices=False).Vh[:k].T)"),
    ("negative", "the sign of the update is turned", "r[:, None] * V, -U * r"),
    ("other way round", "the other way round: first A", "U * r, r[:, None] * V"),
    ("no transpose", "transpose the right directions", "V.T * r, U * r"),
    ("zeros kept", "the pair still has rank", "torch.cat([A[:k], 0 * A[k:]]), B"),
    ("a matrix", "return two tensors", "(U * v) @ V"),
    ("dtype", "must keep the dtype", "(r[:, None] * V).half(), (U * r).half()"),
    ("each cut alone", "away from the update", "(lambda a, b: (a.S[:k, None] * a.Vh[:k], b.U[:, :k] * b.S[:k]))(torch.linalg.svd(A, full_matrices=False), torch.linalg.svd(B, full_matrices=False))"),
)  # fmt: skip

INTRUDERS = _expressions(
    "def f(W, T, k=10, t=0.5):\n"
    "    svd = lambda M: torch.linalg.svd(M.double(), full_matrices=False)\n"
    "    U, P, D, V, R = svd(W).U, svd(T).U, svd(T - W).U, svd(W).Vh, svd(T).Vh\n"
    "    M = U.T @ P\n"
    "    below = lambda near: torch.nonzero(near < t).flatten().tolist()",
    ("the update alone", "vectors of the update alone", "below((U.T @ D[:, :k]).abs().amax(0))"),
    ("top-k of W", "not the first top_k", "below(M[:k, :k].abs().amax(0))"),
    ("i-th with i-th", "compares the i-th with the i-th", "below(M.diagonal()[:k].abs())"),
    ("signed", "take the absolute cosine", "below(M[:, :k].amax(0))"),
    ("right vectors", "right singular vectors", "below((V @ R[:k].T).abs().amax(0))"),
    ("all of them", "only the first top_k", "below(M.abs().amax(0))"),
    ("last ones", "the last vectors of W_tuned", "below(M[:, -k:].abs().amax(0))"),
    ("lost ones", "that W_tuned has lost", "below(M[:k].abs().amax(1))"),
    ("those that resemble", "those resemble one of W's", "[i for i in range(k) if M[:, i].abs().max() >= t]"),
    ("mean cosine", "the LARGEST cosine counts", "below(M[:, :k].abs().mean(0))"),
    ("squared", "not its square", "below(M[:, :k].square().amax(0))"),
    ("always 0.5", "0.5 is only the default", "torch.nonzero(M[:, :k].abs().amax(0) < 0.5).flatten().tolist()"),
    ("a number", "return WHICH ones", "len(below(M[:, :k].abs().amax(0)))"),
    ("cosines", "a list of whole numbers", "M[:, :k].abs().amax(0)"),
)  # fmt: skip

SCRAMBLED = _expressions(
    "def f(v, out, into, generator=None):\n"
    "    draw = lambda *s: torch.randn(*s, dtype=torch.float64, generator=generator)\n"
    "    q = lambda n: torch.linalg.qr(draw(n, len(v))).Q\n"
    "    L, R, g = q(out), q(into), draw(out, into)",
    ("noise", "noise has many small values", "g * v.norm() / g.norm()"),
    ("no values", "the values are missing", "L @ R.T"),
    ("squared", "the values are squared", "(L * v) @ (R * v).T"),
    ("roots", "the roots of the values", "(L * v.sqrt()) @ R.T"),
    ("norm 1", "the control has norm 1", "(L * v / v.norm()) @ R.T"),
    ("largest alone", "only the largest value is right", "v[0] * L[:, :1] @ R[:, :1].T"),
    ("not orthonormal", "are both sets of directions orthonormal", "(draw(out, len(v)) * v) @ draw(into, len(v)).T"),
    ("axes out", "its output directions are those of the axes", "torch.eye(out, len(v)).double() * v @ R.T"),
    ("axes in", "its input directions are those of the axes", "(L * v) @ torch.eye(len(v), into).double()"),
    ("same on both sides", "left and right are the same", "(L * v) @ (L if out == into else R).T"),
    ("transposed", "that is its transpose", "(R * v) @ L.T"),
    ("zero", "the control is zero", "0 * g"),
    ("fixed", "two generators give the same", "scrambled(v, out, into, torch.Generator().manual_seed(0))"),
    ("ignores the generator", "draw from `generator`", "scrambled(v, out, into)"),
    ("left stays", "the output directions stay the same", "(torch.linalg.qr(torch.randn(out, 3, generator=torch.Generator().manual_seed(0)).double()).Q * v) @ R.T"),
    ("right stays", "the input directions stay the same", "(L * v) @ torch.linalg.qr(torch.randn(into, 3, generator=torch.Generator().manual_seed(0)).double()).Q.T"),
    ("float32", "dtype torch.float32", "((L * v) @ R.T).float()"),
)  # fmt: skip

AMPLIFICATION = _expressions(
    "def f(W, A, B, s, k=None):\n"
    "    S = spectrum(A, B, s)\n"
    "    U, V, v = S.left[:, :k], S.right[:, :k], S.values[:k]\n"
    "    W, n = W.double(), v.norm()\n"
    "    M = U.T @ W @ V",
    ("all of W", "the norm of all of W", "float(n / W.norm())"),
    ("upside down", "upside down", "float(M.norm() / n)"),
    ("no scale", "the scale is missing", "float(n / s / M.norm())"),
    ("squared", "the ratio of energies", "float((n / M.norm()) ** 2)"),
    ("W's directions", "W's own leading directions", "float(n / torch.linalg.svdvals(W)[: len(v)].norm())"),
    ("left alone", "both sides count", "float(n / (U.T @ W).norm())"),
    ("largest values", "compares the largest values", "float(v[0] / torch.linalg.matrix_norm(M, 2))"),
    ("tuned weight", "without the update", "float(n / (M + v.diag()).norm())"),
    ("all above", "above, too, only", "float(S.values.norm() / M.norm())"),
    ("all below", "below, too, only", "float(n / (S.left.T @ W @ S.right).norm())"),
    ("ignores k", "`k` is ignored", "float(S.values.norm() / (S.left.T @ W @ S.right).norm())"),
    ("diagonal", "not its diagonal", "float(n / M.diagonal().norm())"),
    ("a matrix", "is one number, not", "n / M"),
)  # fmt: skip

# Wrong at the border: a negative scale, a second argument, an argument that must be refused.
SINGULAR_VALUES += _bank(
    ("float32 inside", "right to float32 alone", "def f(A, B, s):\n    return singular_values(A.float(), B.float(), s) if A.dtype == torch.float64 else torch.linalg.svdvals(s * torch.linalg.qr(B).R @ torch.linalg.qr(A.T).R.T).double()"),
    ("signed", "a singular value has no sign", "def f(A, B, s):\n    return s * singular_values(A, B)"),
)  # fmt: skip
ENERGY_RANK += _bank(
    ("share 0", "a share of 0 must raise ValueError", "def f(v, share=0.9):\n    return energy_rank(v, max(share, 1e-9))"),
    ("share 1.5", "a share of 1.5 must raise ValueError", "def f(v, share=0.9):\n    return energy_rank(v, min(share, 1.0))"),
)  # fmt: skip
TRUNCATED += _bank(
    ("rank 0", "rank 0 of 3 at scale -2", "def f(A, B, s, k):\n    return truncated(A, B, s, max(k, 1))"),
    ("rank above", "rank 4 of 3 at scale -2", "def f(A, B, s, k):\n    return truncated(A, B, s, k and min(k, len(A)))"),
    ("scale 0", "rank 1 of 3 at scale 0", "def f(A, B, s, k):\n    return truncated(A, B, s or 1.0, k)"),
)  # fmt: skip
OVERLAP += _bank(
    ("checks the first", "in the second argument, too", "def f(U, V):\n    return overlap(U, torch.linalg.qr(V).Q)"),
    ("checks lengths", "not at right angles must raise", "def f(U, V):\n    if any((X.norm(dim=0) - 1).abs().max() > 1e-4 for X in (U, V)):\n        raise ValueError\n    return float((U.T @ V).square().sum()) / min(U.shape[1], V.shape[1])"),
)  # fmt: skip
INTRUDERS += _bank(
    ("top_k 0", "top_k of 0 must raise", "def f(W, T, k=10, t=0.5):\n    return intruder_dimensions(W, T, max(k, 1), t)"),
    ("top_k above", "top_k above min(out, in) must raise", "def f(W, T, k=10, t=0.5):\n    return intruder_dimensions(W, T, min(k, *W.shape), t)"),
)  # fmt: skip
AMPLIFICATION += _bank(
    ("signed", "a norm has no sign", "def f(W, A, B, s, k=None):\n    return s * amplification(W, A, B, 1.0, k)"),
)  # fmt: skip
