// y = x @ w.T + bias + residual for one token and ROWS rows of w, by one simdgroup.
#include "matvec.h"

template <int ROWS, int K, bool BIAS, bool RESIDUAL, typename Matrix, typename T>
inline void qmv(
    Matrix w, uint row, const device T* x, const device T* bias, const device T* residual, device T* y, uint lane) {
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
