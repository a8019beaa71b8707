// y (M, TOP, K), ids and scores (M, TOP), w MXFP4 (E, H, K), residual (M, H) -> out (M, H): a simdgroup for ROWS rows.
#include "moe_matvec.h"
uint row = ROWS * (threadgroup_position_in_grid.x * simdgroups_per_threadgroup + simdgroup_index_in_threadgroup);
uint token = threadgroup_position_in_grid.y;
if (row < H) {
  down_combine<ROWS, TOP, K, H>(w, w_scales, bias, ids + token * TOP, scores + token * TOP, y + token * TOP * K,
                                residual + token * H, row, out + token * H, thread_index_in_simdgroup);
}
