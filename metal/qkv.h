// Queries, keys and values of one token in one pass over one matrix, with their rotary positions.
#include "matvec.h"

// A simdgroup computes two rotary pairs of a head of D = 64: dimensions p, p + 1 and, half a head further, their
// partners. `part` counts the simdgroups' parts: 16 a head; queries' heads first, then keys', then values'.
// rotation: cosines (D / 2,), then sines (D / 2,) of the token's position. bias (heads + 2 * kv_heads) * D.
// q (HEADS, D); k and v (KV_HEADS, D).
template <int K, int HEADS, int KV_HEADS, typename Matrix, typename T>
inline void qkv(Matrix w, uint part, const device T* x, const device T* bias, const device float* rotation,
                device T* q, device T* k, device T* v, uint lane) {
  constexpr uint D = 64;
  uint head = part / 16, p = part % 16 * 2;
  uint rows[4] = {head * D + p, head * D + p + 1, head * D + p + D / 2, head * D + p + 1 + D / 2};
  float sums[4];
  matvec<4, K>(w, rows, x, lane, sums);
  if (lane > 0) return;
  device T* y = head < HEADS ? q + head * D
      : head < HEADS + KV_HEADS ? k + (head - HEADS) * D : v + (head - HEADS - KV_HEADS) * D;
  for (uint i = 0; i < 2; i++) {
    float a = sums[i] + float(bias[rows[i]]), b = sums[i + 2] + float(bias[rows[i + 2]]);
    bool rotated = head < HEADS + KV_HEADS;
    float cosine = rotated ? rotation[p + i] : 1.0f, sine = rotated ? rotation[p + i + D / 2] : 0.0f;
    y[p + i] = T(a * cosine - b * sine);
    y[p + i + D / 2] = T(b * cosine + a * sine);
  }
}
