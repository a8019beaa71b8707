// x (M, K), ids (M, TOP), gate and up MXFP4 (E, I, K) -> y (M, TOP, I): a simdgroup for ROWS rows of a (token, expert).
#include "moe_matvec.h"
uint row = ROWS * (threadgroup_position_in_grid.x * simdgroups_per_threadgroup + simdgroup_index_in_threadgroup);
uint pair = threadgroup_position_in_grid.y, expert = ids[pair];
if (row < I) {
  gate_up_swiglu<ROWS, K>(Mxfp4<K>(gate, gate_scales, expert * I), Mxfp4<K>(up, up_scales, expert * I), row,
                          x + pair / TOP * K, gate_bias + expert * I, up_bias + expert * I, limit, y + pair * I,
                          thread_index_in_simdgroup);
}
