// The experts of one token as matrix-vector products, for few tokens.
#include "matvec.h"
#include "mxfp4.h"
#include "swiglu.h"

// ROWS activations of one (token, expert) pair by one simdgroup: gate and up rows are read together.
// gate_bias and up_bias are the expert's, (I,); y (I,).
template <int ROWS, int K, typename T>
inline void gate_up_swiglu(Mxfp4<K> gate, Mxfp4<K> up, uint row, const device T* x, const device T* gate_bias,
                           const device T* up_bias, float limit, device T* y, uint lane) {
  float g[ROWS], u[ROWS];
  for (int r = 0; r < ROWS; r++) g[r] = u[r] = 0;
  for (uint run = lane; run < K / 32; run += 32) {
    float v[32];
    load<32>(x + run * 32, v);
    for (int r = 0; r < ROWS; r++) {
      g[r] += gate.dot(row + r, run, v, 0);
      u[r] += up.dot(row + r, run, v, 0);
    }
  }
  for (int r = 0; r < ROWS; r++) {
    float a = simd_sum(g[r]) + float(gate_bias[row + r]), b = simd_sum(u[r]) + float(up_bias[row + r]);
    if (lane == 0) y[row + r] = T(swiglu(a, b, limit));
  }
}

// ROWS outputs of one token by one simdgroup: residual + sum over its TOP experts of score * (down @ y + bias).
// y (TOP, K); words, scales and bias are those of all experts: (E, H, ...). ids and scores (TOP,): pointers of any
// address space, as MLX passes less than 8 elements, those of one token, in constant memory.
template <int ROWS, int TOP, int K, int H, typename Ids, typename Scores, typename T>
inline void down_combine(const device uint32_t* words, const device uint8_t* scales, const device T* bias,
                         Ids ids, Scores expert_scores, const device T* y, const device T* residual, uint row,
                         device T* out, uint lane) {
  uint rows[ROWS];
  float sums[ROWS], part[ROWS];
  for (int r = 0; r < ROWS; r++) rows[r] = row + r, sums[r] = 0;
  for (int i = 0; i < TOP; i++) {
    for (int r = 0; r < ROWS; r++) part[r] = 0;
    add_partial_dots<ROWS, K>(Mxfp4<K>(words, scales, ids[i] * H), rows, y + i * K, lane, part);
    for (int r = 0; r < ROWS; r++) sums[r] = fma(expert_scores[i], part[r], sums[r]);
  }
  for (int r = 0; r < ROWS; r++) {
    float sum = simd_sum(sums[r]);
    for (int i = 0; i < TOP; i++) sum = fma(expert_scores[i], float(bias[ids[i] * H + row + r]), sum);
    if (lane == 0) out[row + r] = T(sum + float(residual[row + r]));
  }
}
