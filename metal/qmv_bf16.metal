// y (M, N) = x (M, K) @ w.T [+ bias (N,)] [+ residual (M, N)], w bfloat16 (N, K): a simdgroup for ROWS rows of a token.
#include "bf16.h"
#include "qmv.h"
uint row = ROWS * (threadgroup_position_in_grid.x * simdgroups_per_threadgroup + simdgroup_index_in_threadgroup);
uint token = threadgroup_position_in_grid.y;
if (row < N) {
  qmv<ROWS, K, BIAS, RESIDUAL>(Bf16<K>(w), row, x + token * K, bias, residual + token * N, y + token * N,
                               thread_index_in_simdgroup);
}
