// y = x @ w.T + bias + residual for one token and ROWS rows of w, by one simdgroup.
// bias and residual are pointers of any address space: MLX passes less than 8 elements in constant memory.
#include "matvec.h"

template <int ROWS, int K, bool BIAS, bool RESIDUAL, typename Matrix, typename T, typename Bias, typename Residual>
inline void qmv(Matrix w, uint row, const device T* x, Bias bias, Residual residual, device T* y, uint lane) {
  uint rows[ROWS];
  for (int r = 0; r < ROWS; r++) rows[r] = row + r;
  float sums[ROWS];
  matvec<ROWS, K>(w, rows, x, lane, sums);
  if (lane > 0) return;
  for (int r = 0; r < ROWS; r++) {
    float sum = sums[r];
    if (BIAS) sum += float(bias[row + r]);
    if (RESIDUAL) sum += float(residual[row + r]);
    y[row + r] = T(sum);
  }
}
